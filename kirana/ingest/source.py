"""What is loaded: which files, of which group, and what their columns mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kirana.catalog.objects import SourceObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, InvalidInput, Problem, Unknown, did_you_mean
from kirana.schema import EVENT_TIME, SchemaVersion

NO_ESCAPE = "none"


@dataclass(frozen=True, slots=True)
class Source:
    """How files are read as rows of feature groups.

    Without a `group`, the path of each file names its group. Without a `schema_version`, the
    current one of the group is meant. `renames` has the new name of a column by its name in the
    file. With `ignore_extra`, columns that the group lacks are left out; otherwise they are wrong.
    `event_time` is the column of the event times. `csv_delimiter` stands between the fields of CSV
    files, `csv_escape` before a quote within a field: None if that is not known, `NO_ESCAPE` if a
    quote is doubled instead. `files` are paths and URLs.
    """

    group: str | None = None
    schema_version: int | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    ignore_extra: bool = False
    event_time: str = EVENT_TIME
    csv_delimiter: str = ","
    csv_escape: str | None = None
    files: tuple[str, ...] = ()


def compile_source(source: SourceObject, catalog: Catalog) -> Source:
    """Return the source that a catalog object declares.

    Raise `CatalogError` with paths in the object if it does not fit its group.
    """
    try:
        group = catalog.group(source.group)
        version = group.version_or_current(source.schema_version)
    except Unknown as error:
        raise CatalogError([Problem(error.message, path="group")]) from None
    except InvalidInput as error:
        raise CatalogError([Problem(error.message, path="schema_version")]) from None
    problems = [*_rename_problems(source, [key.name for key in group.entity.keys], version)]
    for position, url in enumerate(source.files):
        if "://" in url and urlsplit(url).password:
            message = "the catalog is no place for a secret: give it to `kirana push` as a variable"
            problems.append(Problem(message, path=f"files[{position}]"))
    if problems:
        raise CatalogError(problems)
    return Source(
        source.group,
        source.schema_version,
        renames=source.rename,
        ignore_extra=source.ignore_extra,
        event_time=source.event_time,
        csv_delimiter=source.csv_delimiter,
        csv_escape=source.csv_escape,
        files=tuple(source.files),
    )


def _rename_problems(
    source: SourceObject, keys: list[str], version: SchemaVersion
) -> list[Problem]:
    known = [*keys, *version.index, source.event_time]
    counts = Counter(source.rename.values())
    problems = []
    for old, new in source.rename.items():
        if new not in known:
            message = f"'{source.group}' has no such column: {did_you_mean(new, known)}"
            problems.append(Problem(message, path=f"rename.{old}"))
        elif counts[new] > 1:
            problems.append(Problem(f"two columns become '{new}'", path=f"rename.{old}"))
    return problems
