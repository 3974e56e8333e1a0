"""Clients of S3, from a URL.

    s3://key:secret@bucket/path?option=value

Without a key, credentials come from where the AWS tools take them: variables, files, the machine.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pyarrow import fs

from kirana.errors import InvalidInput, did_you_mean
from kirana.urls import without_password

OPTIONS = ("region", "scheme", "endpoint_override", "timeout")
DEFAULT_TIMEOUT_S = 10.0
ATTEMPTS = 3


def open_s3(url: str) -> tuple[fs.S3FileSystem, str]:
    """Return a client for a URL, and the path in it, which begins with the bucket.

    A request is repeated if no byte has come for `timeout` seconds, and fails after `ATTEMPTS`.
    Raise `InvalidInput` if the URL is not valid, and `OSError` if the region of the bucket is
    neither given nor can be found.
    """
    parts = urlsplit(url)
    name = without_password(url)
    bucket = parts.netloc.rpartition("@")[2]
    if not bucket:
        raise InvalidInput(f"{name} has no bucket: write s3://BUCKET/PATH")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for option in options.keys() - set(OPTIONS):
        raise InvalidInput(f"{name}: unknown option '{option}': {did_you_mean(option, OPTIONS)}")
    client: dict[str, Any] = {"region": options.get("region")}
    if "endpoint_override" in options:
        client["endpoint_override"] = options["endpoint_override"]
    elif client["region"] is None:
        client["region"] = fs.resolve_s3_region(bucket)
    if parts.username:
        client["access_key"] = unquote(parts.username)
        client["secret_key"] = unquote(parts.password or "")
    timeout_s = _seconds(name, options.get("timeout", str(DEFAULT_TIMEOUT_S)))
    filesystem = fs.S3FileSystem(
        scheme=options.get("scheme", "https"),
        connect_timeout=timeout_s,
        request_timeout=timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **client,
    )
    return filesystem, bucket + unquote(parts.path.rstrip("/"))


def place_of(url: str) -> str:
    """Return what a URL of a folder names, without credentials and other options of the client."""
    parts = urlsplit(url)
    endpoint = dict(parse_qsl(parts.query)).get("endpoint_override", "")
    return f"{parts.scheme}://{endpoint}/{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidInput(f"{name}: timeout must be a number of seconds above 0, not '{text}'")
    return seconds
