"""Where kirana.native is not compiled, its own tests can't be imported; in CI that is an error."""

from __future__ import annotations

from kirana import native
from tests.needs import in_ci

collect_ignore_glob = [] if native.COMPILED or in_ci() else ["test_*.py"]
