"""Imports of Ray in the library: only by the CLI and the handle client, and not at import time."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import kirana

LIBRARY = Path(kirana.__path__[0])
EXEMPT = ("cli/", "client/handles.py")
RAY_MODULES = ("ray", "kirana.deployments", "kirana.graphs", "kirana.demo")


def _ray_imports(tree: ast.AST) -> set[str]:
    """Return the imports of `RAY_MODULES`, and of names in them, anywhere in a syntax tree."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {
        name
        for name in imported
        if f"{name}.".startswith(tuple(f"{module}." for module in RAY_MODULES))
    }


def test_only_the_cli_and_the_handle_client_import_ray() -> None:
    offenders = []
    for file in sorted(LIBRARY.rglob("*.py")):
        name = str(file.relative_to(LIBRARY))
        if name.startswith(EXEMPT):
            continue
        forbidden = _ray_imports(ast.parse(file.read_text()))
        if forbidden:
            offenders.append((name, forbidden))
    assert offenders == []


def test_the_cli_imports_ray_only_inside_functions() -> None:
    offenders = []
    for file in sorted((LIBRARY / "cli").rglob("*.py")):
        tree = ast.parse(file.read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        top_level = [node for node in tree.body if not isinstance(node, functions)]
        if _ray_imports(ast.Module(top_level, [])):
            offenders.append(file.name)
    assert offenders == []


def test_every_module_can_be_imported_without_ray() -> None:
    modules = []
    for file in sorted(LIBRARY.rglob("*.py")):
        parts = ("kirana", *file.relative_to(LIBRARY).with_suffix("").parts)
        if parts[-1] != "__main__":
            modules.append(".".join(part for part in parts if part != "__init__"))
    program = (
        "import sys, importlib\n"
        "sys.modules['ray'] = None\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "assert sys.modules['ray'] is None\n"
    )
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
