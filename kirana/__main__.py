"""`python -m kirana`."""

from kirana.cli import main

main()
