"""The `interactions` node, which reads a user's events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.errors import InvalidInput
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Shape, Value
from kirana.interactions import InteractionQuery, Interactions


class Parameters(Strict):
    """Parameters of an `interactions` node."""

    event: Annotated[str, Field(description="The event type.")]
    last: Annotated[int, Field(ge=1, le=100_000, description="Maximum number of events.")] = 20
    user: Annotated[str, Field(description="The id in the context that names the user.")] = (
        "user_id"
    )


class InteractionsNode:
    """The newest events of one type, for the user in the context."""

    gives = Shape(Interactions)

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        self._with = site.parameters(Parameters, parameters)
        site.allow_inputs()
        site.check_name("event type", self._with.event, site.catalog.event_types, "with.event")

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Read the events of the user.

        Raise `InvalidInput` with the field `context.<id>` if the id of the user is missing or
        invalid. Also raise the other errors of the interactions part.
        """
        query = InteractionQuery(call.id_of(self._with.user), self._with.event, self._with.last)
        try:
            (events,) = await call.services.interactions.query([query], call.request)
        except InvalidInput as error:
            error.path = ("context", self._with.user)
            raise
        return events
