"""The declaration of the interactions part."""

from __future__ import annotations

from pydantic import BaseModel

from kirana.interactions.source import InteractionSource
from kirana.part import Part, StoreSetting, Wiring


class InteractionSettings(BaseModel):
    """Settings of the interactions part. `interactions` is the URL of the store."""

    interactions: str


def _build(wiring: Wiring) -> InteractionSource:
    from kirana.interactions.open import open_interaction_store
    from kirana.interactions.service import InteractionService

    store = open_interaction_store(wiring.settings(InteractionSettings).interactions)
    service = InteractionService(store, wiring.source)
    wiring.on_close(service.close)
    return service


async def _check(url: str) -> None:
    """Raise `ConfigurationError` if the store at `url` can't be opened."""
    from kirana.interactions.open import open_interaction_store

    await open_interaction_store(url).close()


INTERACTIONS = Part(
    name="interactions",
    deployment="InteractionStore",
    protocol=InteractionSource,
    build=_build,
    settings=InteractionSettings,
    stores=(StoreSetting("interactions", "interaction store", _check),),
)
