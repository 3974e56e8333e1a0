"""Events of users: the protocol and data types that other parts use."""

from kirana.interactions.source import (
    Event,
    InteractionQuery,
    Interactions,
    InteractionSource,
)

__all__ = ["Event", "InteractionQuery", "InteractionSource", "Interactions"]
