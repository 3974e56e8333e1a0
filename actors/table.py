"""The table of actors."""

from __future__ import annotations

from collections.abc import Sequence

from kirana.actors.actor import Actors
from kirana.actors.archiver import Archiver
from kirana.actors.spool_archiver import SpoolArchiver
from kirana.actors.stream_consumer import StreamConsumer
from kirana.streams.part import STREAMS, archiver_names, consumer_names, spool_archiver_names

_OPTIONS = {"num_cpus": 0, "max_concurrency": 16}

ACTORS: Sequence[Actors] = (
    Actors(STREAMS, StreamConsumer, consumer_names, _OPTIONS),
    Actors(STREAMS, Archiver, archiver_names, _OPTIONS),
    Actors(STREAMS, SpoolArchiver, spool_archiver_names, _OPTIONS),
)
