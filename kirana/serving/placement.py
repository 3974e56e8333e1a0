"""Which parts are objects in their caller's replica (fused), and which deployments (spread)."""

from __future__ import annotations

from kirana.errors import ConfigurationError, did_you_mean
from kirana.serving.parts import INGRESS, PARTS

SPREADABLE = tuple(part.name for part in PARTS if part.deployment is not None)
"""The parts that can be deployments of their own."""


def parse_placement(text: str) -> frozenset[str]:
    """Return the parts that are spread: of `fused`, `spread`, or `features=spread,models=spread`.

    Parts that are not named are fused. Raises `ConfigurationError` naming what is not known.
    """
    match text.strip():
        case "fused":
            return frozenset()
        case "spread":
            return frozenset(SPREADABLE)
    chosen: dict[str, str] = {}
    for each in text.split(","):
        part, equals, where = each.strip().partition("=")
        if not equals:
            raise ConfigurationError(
                f"placement: '{text}' is neither 'fused' nor 'spread', nor a list like "
                "'features=spread,models=spread'",
                field="placement",
            )
        if part not in SPREADABLE:
            raise ConfigurationError(
                f"placement: there is no part '{part}': {did_you_mean(part, SPREADABLE)}",
                field="placement",
            )
        if where not in ("fused", "spread"):
            raise ConfigurationError(
                f"placement: '{part}' is 'fused' or 'spread', not '{where}'", field="placement"
            )
        if chosen.setdefault(part, where) != where:
            raise ConfigurationError(
                f"placement: '{part}' can't be both 'fused' and 'spread'", field="placement"
            )
    return frozenset(part for part, where in chosen.items() if where == "spread")


def parts_within(owner: str, spread: frozenset[str]) -> frozenset[str]:
    """Return the parts that a replica of `owner` (itself among them) has as local objects."""
    found = {owner}
    for name in _called_by(owner) - spread:
        found |= parts_within(name, spread)
    return frozenset(found)


def _called_by(owner: str) -> frozenset[str]:
    if owner == INGRESS:
        return frozenset(part.name for part in PARTS if part.at_edge)
    return frozenset(called.name for part in PARTS if part.name == owner for called in part.calls)


def owners_of(name: str, spread: frozenset[str]) -> list[str]:
    """Return the deployments whose replicas each have a part as an object of their own."""
    deployed = [INGRESS, *(part.name for part in PARTS if part.name in spread)]
    return [owner for owner in deployed if name in parts_within(owner, spread)]
