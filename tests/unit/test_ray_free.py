"""Ray stays at the rim: the library runs, and is imported, without it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import kirana

LIBRARY = Path(kirana.__path__[0])
MAY_IMPORT_RAY = ("cli/", "client/handles.py")
RIM = ("ray", "kirana.deployments", "kirana.actors", "kirana.graphs", "kirana.demo")


def _rim_imports(tree: ast.AST) -> set[str]:
    """Return the modules of the rim that are imported anywhere in a file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if f"{name}.".startswith(tuple(f"{each}." for each in RIM))}


def test_only_the_rim_of_the_library_imports_ray() -> None:
    offenders = []
    for file in sorted(LIBRARY.rglob("*.py")):
        name = str(file.relative_to(LIBRARY))
        if name.startswith(MAY_IMPORT_RAY):
            continue
        forbidden = _rim_imports(ast.parse(file.read_text()))
        if forbidden:
            offenders.append((name, forbidden))
    assert offenders == []


def test_the_command_line_imports_ray_lazily() -> None:
    offenders = []
    for file in sorted((LIBRARY / "cli").rglob("*.py")):
        tree = ast.parse(file.read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        at_top = [node for node in tree.body if not isinstance(node, functions)]
        if _rim_imports(ast.Module(at_top, [])):
            offenders.append(file.name)
    assert offenders == []


def test_every_module_imports_where_there_is_no_ray() -> None:
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
