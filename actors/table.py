"""The table of actors."""

from __future__ import annotations

from collections.abc import Sequence

from kirana.actors.actor import Actors
from kirana.actors.stream_consumer import StreamConsumer
from kirana.streams.part import STREAMS, consumer_names

ACTORS: Sequence[Actors] = (
    Actors(STREAMS, StreamConsumer, consumer_names, {"num_cpus": 0, "max_concurrency": 16}),
)
