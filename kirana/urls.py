"""URLs of stores and folders, such as `lmdb:///folder`, `dir:///folder` and `file:///folder`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from kirana.errors import ConfigurationError


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, or "" if it has none."""
    return url.partition("://")[0] if "://" in url else ""


def without_password(url: str) -> str:
    """Return a URL without the password before its host, and without `password=` in its query."""
    scheme, separator, rest = url.partition("://")
    credentials, at_sign, host_and_path = rest.rpartition("@")
    user = credentials.partition(":")[0]
    rest = f"{user}@{host_and_path}" if user else host_and_path if at_sign else rest
    address, mark, query = rest.partition("?")
    options = [option for option in query.split("&") if not option.startswith("password=")]
    return f"{scheme}{separator}{address}{mark if any(options) else ''}{'&'.join(options)}"


@contextmanager
def usable(
    url: str, *, setting: str, errors: type[Exception] | tuple[type[Exception], ...] = ValueError
) -> Iterator[None]:
    """Raise errors of the block that say why a URL can't be used as a `ConfigurationError`.

    It names `setting`, and the URL without its password.
    """
    try:
        yield
    except errors as error:
        raise ConfigurationError(
            f"{setting}: '{without_password(url)}' can't be used: {error}", field=setting
        ) from None


def addresses_of(netloc: str, default_port: int) -> list[tuple[str, int]]:
    """Return the hosts and ports of a URL, which are separated by commas.

    Raise `ValueError` if one of them is not valid.
    """
    addresses = []
    for address in netloc.rpartition("@")[2].split(","):
        host, colon, port = address.rpartition(":")
        if not colon:
            host, port = address, str(default_port)
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError(f"an address must be host:port, not '{address}'")
        addresses.append((host.strip("[]"), int(port)))
    return addresses


def credentials_of(netloc: str) -> dict[str, str]:
    """Return the `username` and the `password` of a URL, if it has them."""
    user, colon, password = netloc.rpartition("@")[0].partition(":")
    credentials = {"username": unquote(user)} if user else {}
    return {**credentials, "password": unquote(password)} if colon else credentials


def split(url: str, *, setting: str) -> SplitResult:
    """Split a URL into scheme, host, path and query.

    Raise `ConfigurationError`, which names `setting`, if the URL is not valid.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(
            f"{setting}: '{url}' is not a valid URL: {error}", field=setting
        ) from None


def folder_of(url: str, scheme: str, *, setting: str) -> Path:
    """Return the absolute path of the folder that `url` names.

    Raise `ConfigurationError`, which names `setting`, if the URL is not valid, has a scheme other
    than `scheme`, has a host, or has no path.
    """
    parts = split(url, setting=setting)
    example = f"{scheme}:///absolute/folder"
    if scheme_of(url) != scheme:
        raise ConfigurationError(
            f"{setting}: must be a URL such as {example}, not '{url}'", field=setting
        )
    if parts.netloc or not parts.path.strip("/"):
        raise ConfigurationError(
            f"{setting}: must name a folder after three slashes, such as {example}, not '{url}'",
            field=setting,
        )
    return Path(unquote(parts.path))


def option_of(url: str, name: str) -> str | None:
    """Return the last value of `name` in the query of a URL, or None if no value is given."""
    values = parse_qs(urlsplit(url).query).get(name)
    return values[-1] if values else None
