"""Checks that the documentation agrees with the code."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kirana.catalog.objects import KINDS
from kirana.codecs import CODECS, Column
from kirana.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NodeError,
    StoreFull,
    TooLarge,
    Unavailable,
)
from kirana.expressions import FUNCTIONS
from kirana.flow.generators import GENERATORS
from kirana.flow.nodes import OPS
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion
from kirana.serving.settings import Settings

CODES = [
    error.code
    for error in (
        DeadlineExceeded,
        InvalidInput,
        ModelFailed,
        NodeError,
        StoreFull,
        TooLarge,
        Unavailable,
    )
]
DOCS = Path(__file__).parents[2] / "docs"


def test_the_codecs_write_the_example_of_the_format_page() -> None:
    page = (DOCS / "formats.md").read_text()
    block = re.search(r"```\n((?:[0-9a-f]{2}[ \n])+)```", page)
    assert block is not None
    features = (
        Feature("clicks", "int32"),
        Feature("ctr", "float64"),
        Feature("title", "string"),
        Feature("hot", "bool"),
        Feature("vec", "float16", (2,)),
    )
    version = SchemaVersion("product.demo", 1, features)
    entity = Entity("product", (Key("product_id"),))
    group = FeatureGroup("product.demo", entity, 7 * 86_400_000, "packed", (version,))
    columns = {
        "clicks": Column(np.array([7])),
        "ctr": Column(np.array([0.25])),
        "title": Column(np.array(["né"], dtype=object)),
        "hot": Column(np.array([True])),
        "vec": Column(np.array([[1.0, -2.0]])),
    }
    times = np.array([1_700_000_000_000], dtype=np.uint64)
    (row,) = CODECS["packed"].encode(group, version, columns, times)
    assert row == bytes.fromhex(block[1])
    (line,) = CODECS["text"].encode(group, version, columns, times)
    assert f"```text\n{line.decode()}\n```" in page


@pytest.mark.parametrize("page", ["http.md", "catalog.md", "cli.md"])
def test_the_reference_pages_are_up_to_date(page: str) -> None:
    generate = runpy.run_path(str(DOCS / "generate.py"))["PAGES"][page]
    assert (DOCS / "reference" / page).read_text() == generate(), "run 'make docs'"


def test_the_generated_messages_match_the_proto_file(tmp_path: Path) -> None:
    proto = DOCS.parent / "proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}"]
    command += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", "kirana/v1/messages.proto"]
    subprocess.run(command, check=True)
    for name in ("messages_pb2.py", "messages_pb2.pyi"):
        generated = (tmp_path / "kirana" / "v1" / name).read_text()
        assert generated == (DOCS.parent / "kirana" / "wire" / name).read_text(), "run 'make proto'"


@pytest.mark.parametrize("name", [*KINDS, *OPS, *GENERATORS, *FUNCTIONS])
def test_the_catalog_page_describes_every_kind_op_generator_and_function(name: str) -> None:
    page = (DOCS / "catalog.md").read_text()
    assert any(spelling in page for spelling in (f"## {name}\n", f"`{name}`", f"`{name}("))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_operations_page_lists_every_setting(name: str) -> None:
    assert f"| `{name}` |" in (DOCS / "operations.md").read_text()


def test_the_operations_page_lists_the_error_codes() -> None:
    page = (DOCS / "operations.md").read_text()
    for code in (*CODES, "invalid_json", "not_found", "method_not_allowed"):
        assert f"`{code}`" in page
