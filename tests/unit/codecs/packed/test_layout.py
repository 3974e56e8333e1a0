"""Where features stand in a packed row."""

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
            Feature(f"f{at}", dtype, draw(shapes) if dtype in NUMERIC else ())
            for at, dtype in enumerate(dtypes)
        )
    )


def test_the_header_has_24_bytes() -> None:
    assert HEADER.itemsize == 24
    assert [HEADER.fields[name][1] for name in HEADER.names] == [0, 1, 2, 4, 8, 12, 16]  # type: ignore[index, union-attr]


def test_the_widest_come_first_and_equals_keep_their_order() -> None:
    made = layout(
        Feature("a", "int8"),
        Feature("b", "float64"),
        Feature("c", "string"),
        Feature("d", "float16", (3,)),
        Feature("e", "bool"),
        Feature("f", "uint64"),
        Feature("g", "int32"),
        Feature("h", "int8"),
    )
    assert made.offsets == {"b": 0, "f": 8, "c": 16, "g": 24, "d": 28, "a": 34, "h": 35}
    assert (made.null_start, made.null_bytes) == (36, 1)
    assert (made.boolean_start, made.boolean_bytes) == (37, 1)
    assert made.stride == 40


def test_booleans_alone_need_no_alignment() -> None:
    made = layout(*(Feature(f"b{at}", "bool") for at in range(9)))
    assert (made.null_bytes, made.boolean_start, made.boolean_bytes, made.stride) == (2, 2, 2, 4)


@given(layouts())
def test_every_element_is_aligned_and_nothing_overlaps(made: Layout) -> None:
    taken: list[tuple[int, int]] = []
    for feature in made.version.features:
        if feature.dtype == "bool":
            continue
        start = made.offsets[feature.name]
        assert start % width(feature) == 0
        words = 2 if feature.dtype == "string" else 1
        taken.append((start, start + width(feature) * feature.size * words))
    taken.append((made.null_start, made.null_start + made.null_bytes))
    taken.append((made.boolean_start, made.boolean_start + made.boolean_bytes))
    taken.sort()
    assert taken[0][0] == 0
    assert all(one[1] == other[0] for one, other in pairwise(taken))
    widest = max((width(f) for f in made.version.features if f.dtype != "bool"), default=1)
    assert made.stride % widest == 0
    assert 0 <= made.stride - taken[-1][1] < widest
    assert made.row_dtype.itemsize == HEADER.itemsize + made.stride


@given(layouts(), st.data())
def test_runs_copy_each_numeric_feature_to_its_columns(made: Layout, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(made.version.features), max_size=12))
    names = tuple(feature.name for feature in wanted)
    copied = {}
    for run in made.runs(names, tuple(feature.size for feature in wanted)):
        itemsize = run.dtype.itemsize
        assert run.stop - run.start == run.width * itemsize
        for at in range(run.width):
            copied[run.column + at] = (run.start + at * itemsize, run.dtype)
    expected, column = {}, 0
    for feature in wanted:
        if feature.dtype in NUMERIC:
            dtype = NUMERIC[feature.dtype]
            for at in range(feature.size):
                place = made.offsets[feature.name] + at * dtype.itemsize
                expected[column + at] = (place, dtype)
        column += feature.size
    assert copied == expected


def test_neighbours_of_one_dtype_are_one_run() -> None:
    made = layout(*(Feature(name, "float32") for name in "abc"), Feature("v", "float32", (4,)))
    (run,) = made.runs(("a", "b", "c", "v"), (1, 1, 1, 4))
    assert (run.start, run.stop, run.column, run.width) == (0, 28, 0, 7)
    assert run.dtype == np.dtype("<f4")


def test_what_is_no_neighbour_in_row_and_matrix_is_a_run_of_its_own() -> None:
    made = layout(
        *(Feature(name, "float32") for name in "abc"), Feature("i", "int32"), Feature("t", "bool")
    )
    assert len(made.runs(("b", "a"), (1, 1))) == 2
    assert len(made.runs(("a", "c"), (1, 1))) == 2
    assert len(made.runs(("a", "a"), (1, 1))) == 2
    assert len(made.runs(("c", "i"), (1, 1))) == 2
    assert [run.column for run in made.runs(("a", "t", "b"), (1, 1, 1))] == [0, 2]


def test_a_feature_that_the_version_lacks_takes_columns_but_no_copy() -> None:
    made = layout(Feature("a", "float32"), Feature("b", "float32"))
    runs = made.runs(("a", "new", "b"), (1, 3, 1))
    assert [(run.column, run.width) for run in runs] == [(0, 1), (4, 1)]


def test_one_layout_serves_a_schema_version() -> None:
    one = SchemaVersion("g.g", 1, (Feature("a", "int8"),))
    same = SchemaVersion("g.g", 1, (Feature("a", "int8"),))
    assert layout_of(one) is layout_of(same)
