"""Which parts are objects in their caller's replica (fused), and which deployments (spread)."""

from __future__ import annotations

from kirana.errors import ConfigurationError, did_you_mean

PARTS = ("features", "interactions", "models", "inferflow", "flows")
"""What the ingress, the flows and Inferflow call; each can be spread by itself."""

_BUILT_IN: dict[str, frozenset[str]] = {
    "ingress": frozenset({"features", "interactions", "inferflow", "flows"}),
    "flows": frozenset({"features", "interactions", "inferflow"}),
    "inferflow": frozenset({"features", "models"}),
}
"""What a part calls, and so has in its own replica where that is fused."""


def parse_placement(text: str) -> frozenset[str]:
    """Return the parts that are spread: of `fused`, `spread`, or `features=spread,models=spread`.

    Parts that are not named are fused. Raises `ConfigurationError` naming what is not known.
    """
    match text.strip():
        case "fused":
            return frozenset()
        case "spread":
            return frozenset(PARTS)
    chosen: dict[str, str] = {}
    for each in text.split(","):
        part, equals, where = each.strip().partition("=")
        if not equals:
            raise ConfigurationError(
                f"placement: '{text}' is neither 'fused' nor 'spread', nor a list like "
                "'features=spread,models=spread'",
                field="placement",
            )
        if part not in PARTS:
            raise ConfigurationError(
                f"placement: there is no part '{part}': {did_you_mean(part, PARTS)}",
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
    for part in _BUILT_IN.get(owner, frozenset()) - spread:
        found |= parts_within(part, spread)
    return frozenset(found)


def owners_of(part: str, spread: frozenset[str]) -> list[str]:
    """Return the deployments whose replicas each have `part` as an object of their own."""
    deployed = ["ingress", *(each for each in PARTS if each in spread)]
    return [owner for owner in deployed if part in parts_within(owner, spread)]
