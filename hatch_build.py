"""The build hook that compiles `kirana/native`, if the machine has a C compiler.

Without a compiler, Kirana has the same features, but it is slower.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("kirana", "native")


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that writes extension modules next to their sources."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the extensions, and add them to the build.

        If the compilation fails, show a warning and build without the extensions. But if the
        variable KIRANA_REQUIRE_NATIVE is set, raise the error.
        """
        with tempfile.TemporaryDirectory() as temporary:
            try:
                compile_all(Path(self.root), Path(temporary))
            except Exception as error:  # After any error, Kirana uses its Python loops.
                if os.environ.get("KIRANA_REQUIRE_NATIVE"):
                    raise
                self.app.display_warning(f"kirana.native is not compiled: {error}")
                return
        build_data["artifacts"].append(f"{PACKAGE}/*.so")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_all(root: Path, temporary: Path) -> None:
    """Compile each `.pyx` file in `kirana/native`. Delete the old extensions first.

    `root` is the checkout. `temporary` holds the intermediate files.
    """
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    for old in (root / PACKAGE).glob("*.so"):
        # If the compilation fails, Python must not import an extension older than its source.
        old.unlink()
    sources = sorted((root / PACKAGE).glob("*.pyx"))
    extensions = [
        Extension(".".join((*PACKAGE.parts, file.stem)), [str(file)], extra_compile_args=["-O3"])
        for file in sources
    ]
    modules = cythonize(extensions, build_dir=str(temporary), quiet=True)
    command = build_ext(Distribution({"name": "kirana", "ext_modules": modules}))
    command.build_lib = str(root)
    command.build_temp = str(temporary)
    command.ensure_finalized()
    command.run()
