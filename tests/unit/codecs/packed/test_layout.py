"""The positions of features in a packed row."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs.packed.layout import HEADER, Layout, layout_of
from kirana.schema import DTYPES, NUMERIC, Feature, SchemaVersion


def layout(*features: Feature) -> Layout:
    return Layout(SchemaVersion("g.g", 1, features))


def width(feature: Feature) -> int:
    return 4 if feature.dtype == "string" else NUMERIC[feature.dtype].itemsize


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=20))
    shapes = st.sampled_from([(), (), (1,), (3,), (2, 5)])
    return layout(
        *(
            Feature(f"f{i}", dtype, draw(shapes) if dtype in NUMERIC else ())
            for i, dtype in enumerate(dtypes)
        )
    )


def test_the_header_has_24_bytes() -> None:
    assert HEADER.itemsize == 24
    assert [HEADER.fields[name][1] for name in HEADER.names] == [0, 1, 2, 4, 8, 12, 16]  # type: ignore[index, union-attr]


def test_wider_features_come_first_and_equal_widths_keep_their_order() -> None:
    row_layout = layout(
        Feature("a", "int8"),
        Feature("b", "float64"),
        Feature("c", "string"),
        Feature("d", "float16", (3,)),
        Feature("e", "bool"),
        Feature("f", "uint64"),
        Feature("g", "int32"),
        Feature("h", "int8"),
    )
    assert row_layout.offsets == {"b": 0, "f": 8, "c": 16, "g": 24, "d": 28, "a": 34, "h": 35}
    assert (row_layout.null_start, row_layout.null_bytes) == (36, 1)
    assert (row_layout.boolean_start, row_layout.boolean_bytes) == (37, 1)
    assert row_layout.stride == 40


def test_booleans_alone_need_no_alignment() -> None:
    row_layout = layout(*(Feature(f"b{i}", "bool") for i in range(9)))
    assert (
        row_layout.null_bytes,
        row_layout.boolean_start,
        row_layout.boolean_bytes,
        row_layout.stride,
    ) == (2, 2, 2, 4)


@given(layouts())
def test_every_element_is_aligned_and_nothing_overlaps(row_layout: Layout) -> None:
    taken: list[tuple[int, int]] = []
    for feature in row_layout.version.features:
        if feature.dtype == "bool":
            continue
        start = row_layout.offsets[feature.name]
        assert start % width(feature) == 0
        words = 2 if feature.dtype == "string" else 1
        taken.append((start, start + width(feature) * feature.size * words))
    taken.append((row_layout.null_start, row_layout.null_start + row_layout.null_bytes))
    taken.append((row_layout.boolean_start, row_layout.boolean_start + row_layout.boolean_bytes))
    taken.sort()
    assert taken[0][0] == 0
    assert all(first[1] == second[0] for first, second in pairwise(taken))
    widest = max((width(f) for f in row_layout.version.features if f.dtype != "bool"), default=1)
    assert row_layout.stride % widest == 0
    assert 0 <= row_layout.stride - taken[-1][1] < widest
    assert row_layout.row_dtype.itemsize == HEADER.itemsize + row_layout.stride


@given(layouts(), st.data())
def test_runs_copy_each_numeric_feature_to_its_columns(
    row_layout: Layout, data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.sampled_from(row_layout.version.features), max_size=12))
    names = tuple(feature.name for feature in wanted)
    copied = {}
    for run in row_layout.runs(names, tuple(feature.size for feature in wanted)):
        itemsize = run.dtype.itemsize
        assert run.stop - run.start == run.width * itemsize
        for i in range(run.width):
            copied[run.column + i] = (run.start + i * itemsize, run.dtype)
    expected, column = {}, 0
    for feature in wanted:
        if feature.dtype in NUMERIC:
            dtype = NUMERIC[feature.dtype]
            for i in range(feature.size):
                offset = row_layout.offsets[feature.name] + i * dtype.itemsize
                expected[column + i] = (offset, dtype)
        column += feature.size
    assert copied == expected


def test_adjacent_features_of_one_dtype_are_one_run() -> None:
    row_layout = layout(
        *(Feature(name, "float32") for name in "abc"), Feature("v", "float32", (4,))
    )
    (run,) = row_layout.runs(("a", "b", "c", "v"), (1, 1, 1, 4))
    assert (run.start, run.stop, run.column, run.width) == (0, 28, 0, 7)
    assert run.dtype == np.dtype("<f4")


def test_features_that_one_copy_cannot_move_are_separate_runs() -> None:
    row_layout = layout(
        *(Feature(name, "float32") for name in "abc"), Feature("i", "int32"), Feature("t", "bool")
    )
    assert len(row_layout.runs(("b", "a"), (1, 1))) == 2
    assert len(row_layout.runs(("a", "c"), (1, 1))) == 2
    assert len(row_layout.runs(("a", "a"), (1, 1))) == 2
    assert len(row_layout.runs(("c", "i"), (1, 1))) == 2
    assert [run.column for run in row_layout.runs(("a", "t", "b"), (1, 1, 1))] == [0, 2]


def test_a_feature_that_the_version_lacks_takes_columns_but_no_copy() -> None:
    row_layout = layout(Feature("a", "float32"), Feature("b", "float32"))
    runs = row_layout.runs(("a", "new", "b"), (1, 3, 1))
    assert [(run.column, run.width) for run in runs] == [(0, 1), (4, 1)]


def test_equal_schema_versions_share_one_layout() -> None:
    version = SchemaVersion("g.g", 1, (Feature("a", "int8"),))
    equal_version = SchemaVersion("g.g", 1, (Feature("a", "int8"),))
    assert layout_of(version) is layout_of(equal_version)
