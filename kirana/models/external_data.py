"""The files of an ONNX model. Large weights may be in files beside the ONNX file."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kirana.errors import ConfigurationError

_MARK = b"location"
"""The key under which a tensor names its file. ONNX files without this text are not parsed."""


def files_of(name: str, path: Path) -> tuple[str, ...]:
    """Return the files of the model `name`, whose ONNX file is `path`, the ONNX file first.

    They are relative to the folder of the ONNX file. Raise `ConfigurationError` if the ONNX file
    can't be read, or if its external data is missing, is the ONNX file itself, or is not in this
    folder or its subfolders.
    """
    try:
        if not _mentions(path, _MARK):
            return (path.name,)
        locations = sorted({str(PurePosixPath(location)) for location in _locations(path)})
    except Exception as error:  # After any error, the model can't be used.
        raise ConfigurationError(
            f"model '{name}': {path} can't be read: {error}", field="path"
        ) from None
    for location in locations:
        parts = PurePosixPath(location).parts
        if location == "." or parts[0] == "/" or ".." in parts or location == path.name:
            raise ConfigurationError(
                f"model '{name}': its external data '{location}' must be a file other than "
                f"{path.name}, in the same folder or below it",
                field="path",
            )
        if not (path.parent / location).is_file():
            raise ConfigurationError(
                f"model '{name}': its external data '{location}' is missing from {path.parent}",
                field="path",
            )
    return (path.name, *locations)


def _mentions(path: Path, text: bytes) -> bool:
    """Return whether a file contains `text`."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


def _locations(path: Path) -> Iterator[str]:
    """Yield the file that each tensor with external data names. Files may be repeated."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for tensor in _tensors(model.graph):
        yield from _location(tensor)
    for function in model.functions:
        for tensor in _tensors_of_nodes(function.node):
            yield from _location(tensor)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield all tensors of a graph and of the graphs inside it, such as the branches of an If."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield all tensors in the attributes of nodes, and in graphs inside them."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)


def _location(tensor: Any) -> Iterator[str]:
    """Yield the file of a tensor's data if the data is external, otherwise nothing."""
    from onnx.external_data_helper import uses_external_data

    if uses_external_data(tensor):
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")
