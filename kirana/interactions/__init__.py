"""The interaction store: what a person did, newest first."""

from kirana.interactions.source import (
    Event,
    InteractionQuery,
    Interactions,
    InteractionSource,
)

__all__ = ["Event", "InteractionQuery", "InteractionSource", "Interactions"]
