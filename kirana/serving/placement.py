"""Which parts are objects in their caller's replica (fused), and which are deployments (spread)."""

from __future__ import annotations

from kirana.errors import ConfigurationError, did_you_mean
from kirana.serving.parts import INGRESS, PARTS

SPREADABLE = tuple(part.name for part in PARTS if part.deployment is not None)
"""The names of the parts that can be deployments."""


def parse_placement(text: str) -> frozenset[str]:
    """Return the names of the parts that a placement spreads.

    A placement is `fused`, `spread`, or a list like `features=spread,models=fused`. Parts that the
    list does not name are fused.

    Raise `ConfigurationError` if the text is not a placement, or names an unknown part.
    """
    match text.strip():
        case "fused":
            return frozenset()
        case "spread":
            return frozenset(SPREADABLE)
    placements: dict[str, str] = {}
    for entry in text.split(","):
        part, equals, mode = entry.strip().partition("=")
        if not equals:
            raise ConfigurationError(
                "placement: must be 'fused', 'spread' or a list like "
                f"'features=spread,models=spread', not '{text}'",
                field="placement",
            )
        if part not in SPREADABLE:
            raise ConfigurationError(
                f"placement: unknown part '{part}': {did_you_mean(part, SPREADABLE)}",
                field="placement",
            )
        if mode not in ("fused", "spread"):
            raise ConfigurationError(
                f"placement: '{part}' must be 'fused' or 'spread', not '{mode}'", field="placement"
            )
        if placements.setdefault(part, mode) != mode:
            raise ConfigurationError(
                f"placement: '{part}' can't be both 'fused' and 'spread'", field="placement"
            )
    return frozenset(part for part, mode in placements.items() if mode == "spread")


def parts_within(owner: str, spread: frozenset[str]) -> frozenset[str]:
    """Return the names of the parts that a replica of `owner` has as local objects.

    `owner` is `INGRESS` or a spread part, and is itself in the result.
    """
    within = {owner}
    for name in _called_by(owner) - spread:
        within |= parts_within(name, spread)
    return frozenset(within)


def _called_by(owner: str) -> frozenset[str]:
    """Return the names of the parts that a part, or the edge, calls."""
    if owner == INGRESS:
        return frozenset(part.name for part in PARTS if part.at_edge)
    return frozenset(called.name for part in PARTS if part.name == owner for called in part.calls)


def owners_of(name: str, spread: frozenset[str]) -> list[str]:
    """Return the owners whose replicas have a part as a local object: `INGRESS` or spread parts."""
    deployed = [INGRESS, *(part.name for part in PARTS if part.name in spread)]
    return [owner for owner in deployed if name in parts_within(owner, spread)]
