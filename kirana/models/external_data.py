"""Which files an ONNX model consists of: large weights may lie in files beside it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kirana.errors import ConfigurationError

_MARK = b"location"
"""The key under which a tensor names its file. Most models have no such tensor."""


def files_of(name: str, path: Path) -> tuple[str, ...]:
    """Return the files of the model `name` relative to its folder, the ONNX file first.

    Raises `ConfigurationError` if the file can't be read, or names data outside its folder.
    """
    try:
        if not _mentions(path, _MARK):
            return (path.name,)
        locations = sorted({str(PurePosixPath(each)) for each in _locations(path)})
    except Exception as error:  # protobuf's errors for a file that is no ONNX have no common base
        raise ConfigurationError(
            f"model '{name}': {path} can't be read: {error}", field="path"
        ) from None
    for each in locations:
        parts = PurePosixPath(each).parts
        if each == "." or parts[0] == "/" or ".." in parts or each == path.name:
            raise ConfigurationError(
                f"model '{name}': its external data '{each}' must lie beside {path.name}",
                field="path",
            )
        if not (path.parent / each).is_file():
            raise ConfigurationError(
                f"model '{name}': its external data '{each}' is missing from {path.parent}",
                field="path",
            )
    return (path.name, *locations)


def _mentions(path: Path, text: bytes) -> bool:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


def _locations(path: Path) -> Iterator[str]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    for tensor in _tensors(model.graph):
        yield from _location(tensor)
    for function in model.functions:
        for tensor in _tensors_of_nodes(function.node):
            yield from _location(tensor)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a graph and of the graphs within it (the branches of an If)."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)


def _location(tensor: Any) -> Iterator[str]:
    from onnx.external_data_helper import uses_external_data

    if uses_external_data(tensor):
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")
