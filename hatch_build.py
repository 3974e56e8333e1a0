"""Compiles `kirana/native` where the machine has a C compiler; without one Kirana is whole, and
slower.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("kirana", "native")


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the extension modules beside their sources: in the checkout, or into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                compile_all(Path(self.root), Path(temporary))
            except Exception as error:  # whatever it is, pure Python does
                if os.environ.get("KIRANA_REQUIRE_NATIVE"):
                    raise
                self.app.display_warning(f"kirana.native is not compiled: {error}")
                return
        build_data["artifacts"].append(f"{PACKAGE}/*.so")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_all(root: Path, temporary: Path) -> None:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    for old in (root / PACKAGE).glob("*.so"):
        # it would be found, with sources that are newer
        old.unlink()
    sources = sorted((root / PACKAGE).glob("*.pyx"))
    extensions = [
        Extension(".".join((*PACKAGE.parts, each.stem)), [str(each)], extra_compile_args=["-O3"])
        for each in sources
    ]
    made = cythonize(extensions, build_dir=str(temporary), quiet=True)
    command = build_ext(Distribution({"name": "kirana", "ext_modules": made}))
    command.build_lib = str(root)
    command.build_temp = str(temporary)
    command.ensure_finalized()
    command.run()
