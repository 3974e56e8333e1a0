"""What is looked at before anything starts: each check raises one error with one clear message.

`kirana up`, the builder that `serve deploy` runs, and `kirana doctor` share these.
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
from kirana.models.registry import LoadedModels
from kirana.revision import NO_REVISION, Revision
from kirana.serving.assembly import catalog_backend, open_catalog
from kirana.serving.parts import PARTS, stores_of
from kirana.serving.placement import owners_of
from kirana.serving.settings import Settings
from kirana.urls import folder_of, scheme_of

MIN_FREE_BYTES = 64 << 20
"""Less than this is no room: an LMDB folder and a Ray session want tens of megabytes each."""


def check_placement(
    settings: Settings, max_replicas: Mapping[str, int] | None = None, nodes: int = 1
) -> None:
    """Refuse what can't work; `max_replicas` is by deployment (1 where it is not named).

    Raises `ConfigurationError`.
    """
    replicas = max_replicas or {}
    for part, setting in ((each.name, store.name) for each in PARTS for store in each.stores):
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
                f"{setting}: lmdb:// is a folder of one machine, and this cluster has {nodes}: "
                "a replica on another one would find an empty store",
                field=setting,
            )


def check_space(settings: Settings) -> None:
    """Raise `ConfigurationError` for a file system that has no room for what will be written."""
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigurationError(f"temporary files: {error.strerror}") from None
    folders = {"temporary files": temporary}
    if scheme_of(settings.catalog) != "zk":
        folders["catalog"] = folder_of(settings.catalog, "dir", setting="catalog")
    for name in stores_of(PARTS):
        url = getattr(settings, name)
        if scheme_of(url) == "lmdb":
            folders[name] = folder_of(url, "lmdb", setting=name)
    for name, folder in folders.items():
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        if free < MIN_FREE_BYTES:
            raise ConfigurationError(
                f"{name}: there is no space left for {folder}: {free >> 20} MB are free, "
                f"{MIN_FREE_BYTES >> 20} MB are the least that is needed",
                field=name,
            )


async def check_stores(settings: Settings) -> None:
    """Open and ask what the replicas will. Raises `ConfigurationError` with the setting."""
    for store in stores_of(PARTS).values():
        await store.check(getattr(settings, store.name))


def check_revision(settings: Settings) -> Revision:
    """Load the live revision with its models, and return it.

    Raises `ConfigurationError` if there is none, or the copy of a model is gone or can't be used.
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
        loaded = LoadedModels.below(settings.models)
        for model in source.load(revision).models.values():
            loaded.load(model)
        return revision


def check_catalog(settings: Settings, directory: Path) -> None:
    """Validate the source of the catalog, models included, without publishing it.

    Raises `CatalogError` with every problem, `Unavailable` if its backend does not answer.
    """
    with closing(catalog_backend(settings, directory)) as backend:
        backend.check()


def check_port(host: str, port: int) -> None:
    """Raise `ConfigurationError` if HTTP can't be listened for there."""
    try:
        bind(host, port).close()
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"{host}:{port} can't be listened on ({reason}): choose another "
            "one with --port (of make: PORT=8001)",
            field="port",
        ) from None


def check_direct_ports(settings: Settings) -> None:
    """Raise `ConfigurationError` if no port of the range is free."""
    if settings.direct_range:
        bind_first(settings.direct_host or "127.0.0.1", settings.direct_range).close()


def bind_first(host: str, ports: range) -> socket.socket:
    """Return a socket bound to the first free port of a range.

    Raises `ConfigurationError` if all are taken, or `host` is no address of this machine.
    """
    for port in ports:
        try:
            return bind(host, port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ConfigurationError(
                    f"direct_ports: {host} can't be listened on ({error.strerror})",
                    field="direct_ports",
                ) from None
    raise ConfigurationError(
        f"direct_ports: all of {ports[0]} to {ports[-1]} are taken on {host}: "
        "give another range, or 'off'",
        field="direct_ports",
    )


def bind(host: str, port: int) -> socket.socket:
    """Return a TCP socket bound to an address. Raises `OSError` where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        # a port that was in use a moment ago is free; one that is listened on is not
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(2_048)
    except (OSError, OverflowError):
        made.close()
        raise
    return made
