"""Checks before a start. A check raises an error if the start would fail.

`kirana up`, `kirana doctor`, the builder that `serve deploy` runs, and replicas use them.
"""

from __future__ import annotations

import errno
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from kirana.errors import ConfigurationError, Unavailable
from kirana.models.copies import ModelCopies
from kirana.models.onnx import OnnxModel
from kirana.part import OFF
from kirana.revision import NO_REVISION, Revision
from kirana.serving.assembly import catalog_backend, open_catalog
from kirana.serving.parts import PARTS, store_settings
from kirana.serving.placement import owners_of
from kirana.serving.settings import Settings
from kirana.streams.part import local_archive
from kirana.urls import folder_of, scheme_of

MIN_FREE_BYTES = 64 << 20
"""The minimum of free space for each folder that will be written to."""


def check_placement(
    settings: Settings, max_replicas: Mapping[str, int] | None = None, nodes: int = 1
) -> None:
    """Raise `ConfigurationError` if the replicas or machines that use a store can't share it.

    `max_replicas` is the maximum number of replicas by owner (`INGRESS` or a part), 1 for owners
    that are missing. `nodes` is the number of machines in the cluster.
    """
    replicas = max_replicas or {}
    if settings.streams != OFF and scheme_of(settings.features) == "memory":
        raise ConfigurationError(
            "streams: memory:// is the memory of one process, and the consumers of the stream are "
            "others: use lmdb:///folder, or a store with a server, for the features",
            field="streams",
        )
    if settings.streams == OFF and settings.archive != OFF:
        local_archive(settings.archive)
        if nodes > 1:
            raise ConfigurationError(
                f"archive: without a feature stream, the archive is a folder of one machine, but "
                f"this cluster has {nodes} machines: use --streams",
                field="archive",
            )
    for part, setting in ((p.name, store.name) for p in PARTS for store in p.stores):
        url = getattr(settings, setting)
        owners = owners_of(part, settings.spread)
        copies = sum(replicas.get(owner, 1) for owner in owners)
        if scheme_of(url) == "memory" and copies > 1:
            raise ConfigurationError(
                f"{setting}: memory:// is the memory of one process, and {copies} replicas "
                f"({', '.join(owners)}) would each have their own: use lmdb:///folder, or one "
                f"replica, or --placement {part}=spread",
                field=setting,
            )
        if scheme_of(url) == "lmdb" and nodes > 1:
            raise ConfigurationError(
                f"{setting}: lmdb:// is a folder of one machine, but this cluster has {nodes} "
                "machines: replicas on the others would find an empty store. Use a store with a "
                "server, or one machine",
                field=setting,
            )


def check_space(settings: Settings) -> None:
    """Raise `ConfigurationError` if a folder that will be written to has too little free space.

    Raise it also if there is no folder for temporary files, or if a URL does not name a folder.
    """
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigurationError(f"temporary files: {error.strerror}") from None
    folders = {"temporary files": temporary}
    if scheme_of(settings.catalog) != "zk":
        folders["catalog"] = folder_of(settings.catalog, "dir", setting="catalog")
    for name in store_settings(PARTS):
        url = getattr(settings, name)
        if scheme_of(url) == "lmdb":
            folders[name] = folder_of(url, "lmdb", setting=name)
    for name, folder in folders.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < MIN_FREE_BYTES:
            raise ConfigurationError(
                f"{name}: there is not enough space for {folder}: {free >> 20} MB are free, at "
                f"least {MIN_FREE_BYTES >> 20} MB are needed",
                field=name,
            )


async def check_stores(settings: Settings) -> None:
    """Open each store as the replicas will, and check that it can be used.

    Raise a `ConfigurationError` that names the setting if a store can't be opened, or does not
    answer.
    """
    for store in store_settings(PARTS).values():
        url = getattr(settings, store.name)
        if not (store.optional and url == OFF):
            await store.check(url)


def check_revision(settings: Settings) -> Revision:
    """Load the live revision with its models, and return the revision.

    Raise `ConfigurationError` if there is no revision, if the catalog has never answered, or if the
    copy of a model file that the revision pins is missing or can't be used. Raise `CatalogError` if
    the revision is broken, and `Unavailable` if the catalog stops answering before the revision is
    loaded.
    """
    with closing(open_catalog(settings)) as source:
        try:
            revision = source.current()
        except Unavailable as error:
            raise ConfigurationError(f"catalog: {error.message}", field="catalog") from None
        if revision == NO_REVISION:
            raise ConfigurationError(
                f"catalog: {settings.catalog} has no revision yet: publish one with 'kirana apply'",
                field="catalog",
            )
        copies = ModelCopies.below(settings.models)
        models = source.load(revision).models.values()
        for model in {model.sha256: model for model in models}.values():
            OnnxModel(model.name, copies.checked_path(model))
        return revision


def check_catalog(settings: Settings, directory: Path) -> None:
    """Validate the catalog in a directory, with its models, without publishing it.

    Raise `CatalogError` with all problems, `ConfigurationError` if the URL of the catalog is wrong,
    or `Unavailable` if the backend does not answer.
    """
    with closing(catalog_backend(settings, directory)) as backend:
        backend.check()


def check_port(host: str, port: int) -> None:
    """Raise `ConfigurationError` if this process can't listen on the address."""
    try:
        bind(host, port).close()
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
            remedy = "give an address of this machine with --host"
        else:
            remedy = "choose another port with --port (with make: PORT=8001)"
        raise ConfigurationError(
            f"can't listen on {host}:{port} ({reason}): {remedy}", field="port"
        ) from None


def check_direct_ports(settings: Settings) -> None:
    """Raise `ConfigurationError` if no direct port can be opened. No-op if direct ports are off.

    If the setting `direct_host` is empty, the ports of 127.0.0.1 are checked.
    """
    if settings.direct_range:
        bind_first(settings.direct_host or "127.0.0.1", settings.direct_range).close()


def bind_first(host: str, ports: range) -> socket.socket:
    """Return a socket that listens on the first free port of a range.

    Raise `ConfigurationError` if no port can be used, or `host` is not an address of this machine.
    """
    for port in ports:
        try:
            return bind(host, port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ConfigurationError(
                    f"direct_host: can't listen on {host} ({error.strerror}): give an address of "
                    "this machine",
                    field="direct_host",
                ) from None
    raise ConfigurationError(
        f"direct_ports: no port from {ports[0]} to {ports[-1]} can be used on {host}: "
        "give another range, or 'off'",
        field="direct_ports",
    )


def bind(host: str, port: int) -> socket.socket:
    """Return a TCP socket that listens on an address.

    Raise `OSError` if that fails, or `OverflowError` if `port` is not a port number.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        # With this option, a port that was closed a moment ago can be bound again.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2_048)
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener
