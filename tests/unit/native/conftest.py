"""Leave out these tests if `kirana.native` is not compiled. In CI, they fail to import instead."""

from __future__ import annotations

from kirana import native
from tests.needs import in_ci

collect_ignore_glob = [] if native.COMPILED or in_ci() else ["test_*.py"]
