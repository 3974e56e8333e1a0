"""The handlers of `/v1/catalog`: read objects and the history, publish changes."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from msgspec import UNSET, UnsetType

from kirana.catalog.changes import CatalogPublisher, Change
from kirana.catalog.items import plain
from kirana.catalog.objects import KINDS
from kirana.catalog.schema_records import features_record
from kirana.catalog.snapshot import Catalog
from kirana.edge.exchange import Request, Response, json_response
from kirana.edge.messages import CatalogHistory, CatalogPost, CatalogPut, ExpectedRevision
from kirana.edge.replies import (
    CatalogChangeReply,
    CatalogGetReply,
    CatalogListReply,
    Revision,
    SchemaVersionRecord,
)
from kirana.edge.resources import Resources
from kirana.errors import CatalogError, FieldPath, InvalidInput, Unavailable, Unknown


async def list_objects(request: Request, resources: Resources) -> Response:
    """Return the names of all objects, and the newest revisions.

    While the catalog can't be read, the list of revisions is empty. Otherwise, raise `Unavailable`
    if the replica has no publisher.
    """
    limit = request.query(CatalogHistory).history
    revision = request.context.revision
    catalog = await resources.catalogs.of(request.context)
    away_since = resources.live.away_since
    reply = CatalogListReply(
        revision.number,
        revision.catalog,
        {kind: sorted(catalog.items.get(kind, ())) for kind in KINDS},
        history=[],
    )
    if away_since is not None:
        # The live objects are in memory, but the history must be read from the catalog.
        reply.away_since = int(away_since * 1000)
    else:
        history = await asyncio.to_thread(_publisher(resources).history, limit)
        reply.history = [Revision(**asdict(record)) for record in history]
    return json_response(reply)


async def get(request: Request, resources: Resources) -> Response:
    """Return one object, with its schema versions if it is a feature group.

    Raise `Unknown` if the kind or the object does not exist.
    """
    kind, name = _key(request)
    revision = request.context.revision
    catalog = await resources.catalogs.of(request.context)
    item = catalog.item((kind, name))
    if item is None:
        raise Unknown(kind, name, catalog.items.get(kind, ()), field="name")
    versions = _schema_versions(catalog, name) if kind == "feature_group" else UNSET
    return json_response(CatalogGetReply(plain(item.parsed), revision.number, versions))


def _schema_versions(catalog: Catalog, group: str) -> list[SchemaVersionRecord] | UnsetType:
    if group not in catalog.groups:
        return UNSET
    return [
        SchemaVersionRecord(version.number, f"{version.fingerprint:08x}", features_record(version))
        for version in catalog.groups[group].versions
    ]


async def put(request: Request, resources: Resources) -> Response:
    """Publish one object as a new revision, unless it equals the live one.

    Raise `InvalidInput` if the object has a different kind or name from the path.
    """
    message = await request.decode(CatalogPut)
    kind, name = _key(request)
    content = message.object
    for field, value in (("kind", kind), ("name", name)):
        if content.get(field, value) != value:
            raise InvalidInput(
                f"must be '{value}', as in the path, not {content[field]!r}",
                field=("object", field),
            )
    change = Change(put={"object": {**content, "kind": kind, "name": name}})
    return await _publish(resources, change, message.expected_revision)


async def delete(request: Request, resources: Resources) -> Response:
    """Delete one object: publish a revision without it."""
    expected = request.query(ExpectedRevision).expected_revision
    change = Change(delete={"": _key(request)})
    return await _publish(resources, change, None if expected is UNSET else expected)


async def post(request: Request, resources: Resources) -> Response:
    """Publish several changes as one revision. Raise `InvalidInput` if there are none."""
    message = await request.decode(CatalogPost)
    if not message.objects and not message.delete:
        raise InvalidInput("put or delete at least one object", field="objects")
    change = Change(
        {f"objects[{i}]": content for i, content in enumerate(message.objects)},
        {f"delete[{i}]": (key.kind, key.name) for i, key in enumerate(message.delete)},
    )
    return await _publish(resources, change, message.expected_revision)


async def _publish(resources: Resources, change: Change, expected: int | None) -> Response:
    """Publish a change in a thread.

    A `CatalogError` gets the path to the first of its problems that is in the request.
    """
    publish = _publisher(resources).publish_change
    try:
        published = await asyncio.to_thread(publish, change, expected)
    except CatalogError as error:
        error.path = _path_of(error, change)
        raise
    warnings = [str(warning) for warning in published.checked.warnings]
    return json_response(CatalogChangeReply(published.revision.number, warnings or UNSET))


def _publisher(resources: Resources) -> CatalogPublisher:
    if resources.publisher is None:
        raise Unavailable("this Kirana can't publish: its catalog is read-only")
    return resources.publisher


def _key(request: Request) -> tuple[str, str]:
    """Return the kind and name in the path. Raise `Unknown` if there is no such kind."""
    kind, name = request.parameters
    if kind not in KINDS:
        raise Unknown("kind", kind, KINDS, field="kind")
    return kind, name


def _path_of(error: CatalogError, change: Change) -> FieldPath:
    """Return the path to the first problem that is in an object of the request.

    It is () if all problems are in other objects of the catalog.
    """
    for problem in error.problems:
        if problem.file in change.put:
            return (problem.file, problem.path) if problem.path else (problem.file,)
    return ()
