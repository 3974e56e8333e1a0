"""`/v1/catalog...`: what is live and its history; one change, or several, as one revision."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from kirana.catalog.changes import CatalogPublisher, Change
from kirana.catalog.items import plain
from kirana.catalog.objects import KINDS
from kirana.catalog.revisions import LiveRevision, Revisions
from kirana.catalog.schema_records import features_record
from kirana.catalog.snapshot import Catalog
from kirana.edge.http import HttpRequest, json_bytes
from kirana.edge.messages import CatalogPost, CatalogPut
from kirana.errors import CatalogError, InvalidInput, Unavailable, Unknown

DEFAULT_HISTORY = 20
MAX_HISTORY = 1_000
_EXPECTED = {"expected_revision": "the revision that is live now"}


class CatalogHandlers:
    def __init__(
        self, catalogs: Revisions[Catalog], live: LiveRevision, publisher: CatalogPublisher | None
    ) -> None:
        self._catalogs = catalogs
        self._live = live
        self._publisher = publisher

    async def list(self, request: HttpRequest) -> bytes:
        limit = request.query({"history": "how many revisions"}).get("history", DEFAULT_HISTORY)
        if not 0 <= limit <= MAX_HISTORY:
            raise InvalidInput(f"{limit} is not between 0 and {MAX_HISTORY}", field="history")
        catalog = await self._catalogs.at(request.context.revision)
        away_since = self._live.away_since
        names = {kind: sorted(catalog.items.get(kind, ())) for kind in KINDS}
        reply: dict[str, Any] = {
            "revision": request.context.revision.number,
            "catalog": request.context.revision.catalog,
            "objects": names,
            "history": [],
        }
        if away_since is not None:
            # what is live is known here, how it came to be is not
            return json_bytes({**reply, "away_since": int(away_since * 1000)})
        history = await asyncio.to_thread(self._writer().history, limit)
        return json_bytes({**reply, "history": [asdict(record) for record in history]})

    async def get(self, request: HttpRequest) -> bytes:
        kind, name = _key(request)
        catalog = await self._catalogs.at(request.context.revision)
        item = catalog.item((kind, name))
        if item is None:
            raise Unknown(kind, name, catalog.items.get(kind, ()), field="name")
        reply: dict[str, Any] = {
            "object": plain(item.parsed),
            "revision": request.context.revision.number,
        }
        if name in catalog.groups and kind == "feature_group":
            reply["schema_versions"] = [
                {
                    "version": version.number,
                    "fingerprint": f"{version.fingerprint:08x}",
                    "features": features_record(version),
                }
                for version in catalog.groups[name].versions
            ]
        return json_bytes(reply)

    async def put(self, request: HttpRequest) -> bytes:
        message = await request.decode(CatalogPut)
        kind, name = _key(request)
        given = message.object
        for field, value in (("kind", kind), ("name", name)):
            if given.get(field, value) != value:
                raise InvalidInput(
                    f"{given[field]!r} is not the '{value}' of the path", field=f"object.{field}"
                )
        change = Change(put={"object": {**given, "kind": kind, "name": name}})
        return await self._publish(change, message.expected_revision)

    async def delete(self, request: HttpRequest) -> bytes:
        expected = request.query(_EXPECTED).get("expected_revision")
        return await self._publish(Change(delete={"": _key(request)}), expected)

    async def post(self, request: HttpRequest) -> bytes:
        message = await request.decode(CatalogPost)
        if not message.objects and not message.delete:
            raise InvalidInput("put or delete at least one object", field="objects")
        change = Change(
            {f"objects[{at}]": each for at, each in enumerate(message.objects)},
            {f"delete[{at}]": (each.kind, each.name) for at, each in enumerate(message.delete)},
        )
        return await self._publish(change, message.expected_revision)

    async def _publish(self, change: Change, expected: int | None) -> bytes:
        publish = self._writer().publish_change
        try:
            published = await asyncio.to_thread(publish, change, expected)
        except CatalogError as error:
            error.field = _field_of(error, change)
            raise
        except Unknown as error:
            error.field = (error.field or "").removeprefix(".") or None
            raise
        reply: dict[str, Any] = {"revision": published.revision.number}
        if published.checked.warnings:
            reply["warnings"] = [str(each) for each in published.checked.warnings]
        return json_bytes(reply)

    def _writer(self) -> CatalogPublisher:
        if self._publisher is None:
            raise Unavailable("nothing can be published here")
        return self._publisher


def _key(request: HttpRequest) -> tuple[str, str]:
    kind, name = request.parameters
    if kind not in KINDS:
        raise Unknown("kind", kind, KINDS, field="kind")
    return kind, name


def _field_of(error: CatalogError, change: Change) -> str | None:
    """Return where in the request the first problem is that is about what was sent."""
    for problem in error.problems:
        if problem.file in change.put:
            return f"{problem.file}.{problem.path}" if problem.path else problem.file
    return None
