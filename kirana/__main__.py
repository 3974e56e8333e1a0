"""Run the `kirana` command with `python -m kirana`."""

from kirana.cli import main

main()
