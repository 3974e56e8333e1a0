"""Placement: which parts are spread, and which deployments contain a fused part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.errors import ConfigurationError
from kirana.serving.placement import SPREADABLE, owners_of, parse_placement, parts_within

FUSED: frozenset[str] = frozenset()
SPREAD = frozenset(SPREADABLE)
SOME_SPREAD = st.frozensets(st.sampled_from(SPREADABLE))


@pytest.mark.parametrize(
    ("text", "spread"),
    [
        ("fused", set()),
        ("spread", set(SPREADABLE)),
        (" fused ", set()),
        ("spread\n", set(SPREADABLE)),
        ("models=spread", {"models"}),
        ("features=spread,models=spread", {"features", "models"}),
        (" features=spread , models=fused ", {"features"}),
        ("models=fused", set()),
        (",".join(f"{part}=spread" for part in SPREADABLE), set(SPREADABLE)),
    ],
)
def test_a_placement_says_which_parts_are_spread(text: str, spread: set[str]) -> None:
    assert parse_placement(text) == spread


@given(SOME_SPREAD)
def test_every_choice_of_spread_parts_is_parsed(spread: frozenset[str]) -> None:
    text = ",".join(f"{part}={'spread' if part in spread else 'fused'}" for part in SPREADABLE)
    assert parse_placement(text) == spread


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be 'fused', 'spread' or a list"),
        ("FUSED", "must be 'fused', 'spread' or a list"),
        ("models", "must be 'fused', 'spread' or a list"),
        ("fused,models=spread", "must be 'fused', 'spread' or a list"),
        ("models=spread,", "must be 'fused', 'spread' or a list"),
        (",", "must be 'fused', 'spread' or a list"),
        ("model=spread", "unknown part 'model': did you mean 'models'?"),
        ("ingress=spread", "unknown part 'ingress'"),
        ("=spread", "unknown part ''"),
        ("models=", "'models' must be 'fused' or 'spread', not ''"),
        ("models=2", "'models' must be 'fused' or 'spread', not '2'"),
        ("models=spread=fused", "'models' must be 'fused' or 'spread', not 'spread=fused'"),
    ],
)
def test_an_invalid_placement_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_placement(text)
    assert caught.value.field == "placement"
    assert caught.value.message.startswith("placement: ")
    assert reason in caught.value.message


def test_a_fused_ingress_contains_every_part() -> None:
    assert parts_within("ingress", FUSED) == {"ingress", "streams", *SPREADABLE}


@pytest.mark.parametrize(
    ("owner", "spread", "within"),
    [
        (
            "ingress",
            {"models"},
            {"ingress", "streams", "features", "interactions", "inferflow", "flows"},
        ),
        ("ingress", {"inferflow"}, {"ingress", "streams", "features", "interactions", "flows"}),
        ("inferflow", {"inferflow"}, {"inferflow", "features", "models"}),
        ("inferflow", {"inferflow", "models"}, {"inferflow", "features"}),
        ("flows", {"flows"}, {"flows", "features", "interactions", "inferflow", "models"}),
        ("flows", {"flows", "inferflow"}, {"flows", "features", "interactions"}),
        ("features", {"features"}, {"features"}),
        ("models", {"models"}, {"models"}),
    ],
)
def test_a_replica_contains_the_fused_parts_that_it_calls(
    owner: str, spread: set[str], within: set[str]
) -> None:
    assert parts_within(owner, frozenset(spread)) == within


@pytest.mark.parametrize("owner", ["ingress", *SPREADABLE])
def test_if_every_part_is_spread_a_replica_contains_only_its_own_part(owner: str) -> None:
    always_fused = {"streams"} if owner == "ingress" else set()
    assert parts_within(owner, SPREAD) == {owner, *always_fused}


@pytest.mark.parametrize(
    ("part", "spread", "owners"),
    [
        ("features", set(), ["ingress"]),
        ("features", {"flows"}, ["ingress", "flows"]),
        ("features", {"flows", "inferflow"}, ["ingress", "inferflow", "flows"]),
        ("features", {"flows", "inferflow", "features"}, ["features"]),
        ("interactions", {"flows", "inferflow"}, ["ingress", "flows"]),
        ("models", {"inferflow"}, ["inferflow"]),
        ("models", {"flows"}, ["ingress", "flows"]),
        ("inferflow", {"flows"}, ["ingress", "flows"]),
    ],
)
def test_owners_are_the_deployments_that_contain_a_part(
    part: str, spread: set[str], owners: list[str]
) -> None:
    assert owners_of(part, frozenset(spread)) == owners


@given(SOME_SPREAD)
def test_every_part_has_an_owner_and_a_spread_part_owns_itself(spread: frozenset[str]) -> None:
    for part in SPREADABLE:
        owners = owners_of(part, spread)
        assert owners
        assert len(set(owners)) == len(owners)
        assert set(owners) <= {"ingress", *spread}
        if part in spread:
            assert owners == [part]


def test_if_every_part_is_spread_each_part_has_one_owner() -> None:
    for part in SPREADABLE:
        assert owners_of(part, SPREAD) == [part]
