"""The columns of a file, those in its path included, by the names that Kirana knows them by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from kirana.errors import did_you_mean
from kirana.ingest.source import Source
from kirana.schema import EVENT_TIME, FeatureGroup, SchemaVersion

_INDEX = re.compile(r"__index_level_\d+__|")
"""The columns in which pandas keeps the index of a table; without a name in CSV."""


class FileColumns:
    """The columns of one file.

    `stored` has the column of the file by its new name. `constants` has the value of each column
    that is in the path, as text.
    """

    def __init__(
        self, names: Sequence[str], partitions: Mapping[str, str | None], source: Source
    ) -> None:
        self._names = [name for name in names if not _INDEX.fullmatch(name)]
        self._partitions = partitions
        self._source = source
        self.stored = {self._new_name(name): name for name in self._names}
        self.constants = {self._new_name(name): value for name, value in partitions.items()}

    def _new_name(self, name: str) -> str:
        return self._source.renames.get(name, name)

    def problems(self, group: FeatureGroup, version: SchemaVersion) -> Iterator[tuple[str, str]]:
        """Yield each column that is wrong, and what is wrong with it."""
        keys, features = [key.name for key in group.entity.keys], [*version.index]
        event_time = self._source.event_time
        wanted = [*keys, *features, event_time]
        yield from self._repeated(wanted)
        all_names = [*self._names, *self._partitions]
        for old, new in self._source.renames.items():
            if old not in all_names:
                yield old, f"can't be renamed to '{new}': {self._lacks('column')}"
        for kind, names in (("key", keys), ("feature", features)):
            for name in names:
                if name not in self.stored and name not in self.constants:
                    yield name, self._lacks(kind)
        if event_time != EVENT_TIME and event_time not in {*self.stored, *self.constants}:
            yield event_time, self._lacks("column of event times")
        if not self._source.ignore_extra:
            for name in sorted(self.stored.keys() - set(wanted)):
                hint = did_you_mean(name, wanted)
                yield name, f"'{group.name}' version {version.number} has no such feature: {hint}"

    def _repeated(self, wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
        new_names = [self._new_name(name) for name in self._names]
        for name in sorted({name for name in new_names if new_names.count(name) > 1}):
            yield name, "the file has this column twice"
        for name in sorted(self.stored.keys() & self.constants.keys() & set(wanted)):
            yield name, "this column is in the file and in its path"

    def _lacks(self, kind: str) -> str:
        columns = ", ".join(sorted({*self._names, *self._partitions}))
        return f"the file lacks this {kind}: its columns are {columns}"
