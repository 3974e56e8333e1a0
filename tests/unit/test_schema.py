"""Features, schema versions and their fingerprints, defaults, and expiry."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.errors import InvalidInput, Unknown
from kirana.schema import DTYPES, NUMERIC, Entity, Feature, FeatureGroup, Key, SchemaVersion

PRODUCT = Entity("product", (Key("product_id"),))
CLICKS = Feature("clicks", "int32", default=0)
CTR = Feature("ctr", "float32", default=0.5)
ONE = SchemaVersion("product.stats", 1, (CLICKS, CTR))
TWO = SchemaVersion("product.stats", 2, (CTR,))


def group(ttl_ms: int = 0) -> FeatureGroup:
    return FeatureGroup("product.stats", PRODUCT, ttl_ms, "packed", (ONE, TWO))


def test_every_numeric_dtype_is_little_endian() -> None:
    assert set(DTYPES) == {*NUMERIC, "bool", "string"}
    for name, dtype in NUMERIC.items():
        assert dtype.name == name
        assert dtype.newbyteorder("<") == dtype


def test_a_fingerprint_is_a_hash_of_group_and_signatures() -> None:
    text = b"product.stats\nclicks:int32:\nctr:float32:"
    digest = hashlib.blake2b(text, digest_size=4).digest()
    assert ONE.fingerprint == int.from_bytes(digest, "little")


def test_a_fingerprint_depends_on_group_names_dtypes_shapes_and_order() -> None:
    vector = Feature("v", "float32", (2, 3))
    version = SchemaVersion("g.g", 1, (CLICKS, vector))
    variants = [
        replace(version, group="g.h"),
        replace(version, features=(vector, CLICKS)),
        replace(version, features=(CLICKS,)),
        replace(version, features=(CLICKS, replace(vector, shape=(3, 2)))),
        replace(version, features=(CLICKS, replace(vector, shape=(6,)))),
        replace(version, features=(CLICKS, replace(vector, dtype="int32"))),
        replace(version, features=(CLICKS, replace(vector, name="w"))),
    ]
    assert len({changed.fingerprint for changed in (version, *variants)}) == len(variants) + 1


def test_a_fingerprint_does_not_depend_on_defaults() -> None:
    changed = replace(ONE, features=(replace(CLICKS, default=7), CTR))
    assert changed.fingerprint == ONE.fingerprint


def test_versions_that_differ_in_a_default_are_different() -> None:
    changed = replace(ONE, features=(replace(CLICKS, default=7), CTR))
    assert changed != ONE
    assert {ONE: 1, changed: 2}[ONE] == 1
    assert replace(ONE) == ONE
    assert hash(replace(ONE)) == hash(ONE)


def test_a_feature_is_found_by_name_or_the_closest_name_is_suggested() -> None:
    assert ONE.feature("ctr") is CTR
    with pytest.raises(Unknown, match=r"did you mean 'product\.stats\.clicks'") as caught:
        ONE.feature("click")
    assert caught.value.code == "unknown_feature"
    assert caught.value.name == "product.stats.click"


def test_the_last_version_is_current_and_every_version_is_found_by_number() -> None:
    assert group().current is TWO
    assert group().version(1) is ONE
    assert group().version(2) is TWO


@pytest.mark.parametrize("number", [0, -1, 3, 2**70])
def test_an_unknown_version_number_is_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match="the newest is 2") as caught:
        group().version(number)
    assert caught.value.field == "schema_version"


def test_the_short_name_omits_the_entity() -> None:
    assert group().short_name == "stats"


def test_rows_of_a_group_without_a_ttl_never_expire() -> None:
    assert group().expiry_s(np.array([0, 2**53], dtype=np.uint64)).tolist() == [0, 0]


@given(st.integers(0, 2**53), st.integers(1, 10**13))
def test_expiry_is_event_time_plus_ttl_rounded_up_to_seconds(time: int, ttl: int) -> None:
    (result,) = group(ttl).expiry_s(np.array([time], dtype=np.uint64)).tolist()
    assert result == min(-(-(time + ttl) // 1000), 2**32 - 1)


@pytest.mark.parametrize(
    ("feature", "default"),
    [
        (Feature("a", "int32"), 0),
        (Feature("a", "int64", default=-(2**63)), -(2**63)),
        (Feature("a", "uint64", default=2**64 - 1), 2**64 - 1),
        (Feature("a", "float16", default=0.5), 0.5),
        (Feature("a", "float64", default=1), 1.0),
        (Feature("a", "bool"), False),
        (Feature("a", "bool", default=True), True),
        (Feature("a", "string"), ""),
        (Feature("a", "string", default="?"), "?"),
        (Feature("a", "float32", (2,)), [0.0, 0.0]),
        (Feature("a", "int8", (2, 2), default=3), [[3, 3], [3, 3]]),
        (Feature("a", "int8", (2,), default=(3, 4)), [3, 4]),
    ],
)
def test_a_default_has_the_features_dtype_and_shape(feature: Feature, default: object) -> None:
    result = feature.default_array()
    assert result.tolist() == default
    assert result.shape == feature.shape
    assert feature.size == max(1, result.size)
    if feature.dtype in NUMERIC:
        assert result.dtype == NUMERIC[feature.dtype]
