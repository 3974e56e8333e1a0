"""URLs choose stores and folders: `lmdb:///folder`, `dir:///folder`, `file:///folder`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from kirana.errors import ConfigurationError


def scheme_of(url: str) -> str:
    return url.partition("://")[0] if "://" in url else ""


def without_password(url: str) -> str:
    """Return a URL without its password, wherever in it that is."""
    scheme, separator, rest = url.partition("://")
    before, at, after = rest.rpartition("@")
    user = before.partition(":")[0]
    rest = f"{user}@{after}" if user else after if at else rest
    address, mark, query = rest.partition("?")
    options = [each for each in query.split("&") if not each.startswith("password=")]
    return f"{scheme}{separator}{address}{mark if any(options) else ''}{'&'.join(options)}"


def split(url: str, *, setting: str) -> SplitResult:
    """Return the parts of a URL. Raises `ConfigurationError` naming the setting."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{setting}: '{url}' is no URL: {error}", field=setting) from None


def folder_of(url: str, scheme: str, *, setting: str) -> Path:
    """Return the absolute folder that `url` names, which must be of `scheme`.

    Raises `ConfigurationError` naming the setting.
    """
    parts = split(url, setting=setting)
    example = f"{scheme}:///absolute/folder"
    if scheme_of(url) != scheme:
        raise ConfigurationError(f"{setting}: '{url}' is not like {example}", field=setting)
    if parts.netloc or not parts.path.strip("/"):
        raise ConfigurationError(
            f"{setting}: '{url}' needs three slashes and a folder, like {example}", field=setting
        )
    return Path(unquote(parts.path))


def option_of(url: str, name: str) -> str | None:
    """Return the value of `?name=value` in a URL."""
    values = parse_qs(urlsplit(url).query).get(name)
    return values[-1] if values else None
