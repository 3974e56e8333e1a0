"""The request headers that Kirana reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kirana.edge.errors import HttpError
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.errors import InvalidInput

TIMEOUT_HEADER = b"x-kirana-timeout-ms"
REQUEST_ID_HEADER = b"x-request-id"
CALLER_HEADER = b"x-kirana-caller"
MAX_TIMEOUT_MS = 600_000


@dataclass(slots=True)
class Headers:
    """Values of the headers that Kirana reads.

    The values are checked where they are used, not where they are read. So a request with an
    invalid header still gets a response with a request id.
    """

    content_length: int = 0
    content_type: bytes | None = None
    accept: bytes = b""
    timeout: bytes | None = None
    request_id: bytes = b""
    traceparent: bytes = b""
    caller: bytes = b""

    def timeout_ms(self, default: int) -> int:
        """Return the timeout in milliseconds, or `default` if the request has none.

        Raise `InvalidInput` if it is not an integer from 1 to `MAX_TIMEOUT_MS`.
        """
        value = self.timeout
        if value is None:
            return default
        is_short = value.isdigit() and len(value) <= len(str(MAX_TIMEOUT_MS))
        if not is_short or not 1 <= int(value) <= MAX_TIMEOUT_MS:
            raise InvalidInput(
                f"must be an integer from 1 to {MAX_TIMEOUT_MS}, in milliseconds",
                field=TIMEOUT_HEADER.decode(),
            )
        return int(value)

    def binary(self, method: str, *, binary_route: bool) -> bool:
        """Return whether the body is Protobuf. Without a content type, it is JSON.

        Methods other than `POST` and `PUT` have no body. Raise `HttpError` if the route does not
        accept the content type.
        """
        if self.content_type is None or method not in ("POST", "PUT"):
            return False
        return _is_binary(self.content_type, binary_route)

    def binary_reply(self, *, binary_route: bool) -> bool:
        """Return whether the reply must be Protobuf: the client and the route both support it."""
        return binary_route and CONTENT_TYPE in self.accept.lower()


_NAMES = {
    b"content-type": "content_type",
    b"accept": "accept",
    TIMEOUT_HEADER: "timeout",
    REQUEST_ID_HEADER: "request_id",
    b"traceparent": "traceparent",
    CALLER_HEADER: "caller",
}


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Read `Headers` from pairs of a lower-case name and a value."""
    headers = Headers()
    for name, value in pairs:
        if name == b"content-length" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            # `int` refuses thousands of digits. More than 15 digits exceed any limit anyway.
            headers.content_length = int(digits) if len(digits) <= 15 else 1 << 60
        elif name in _NAMES:
            setattr(headers, _NAMES[name], value)
    return headers


def _is_binary(value: bytes, binary_route: bool) -> bool:
    content_type = value.split(b";")[0].strip().lower()
    if content_type == b"application/json":
        return False
    if content_type == CONTENT_TYPE and binary_route:
        return True
    known = "application/json" + (f" or {CONTENT_TYPE.decode()}" if binary_route else "")
    shown = value.decode("latin-1")[:60]
    raise HttpError(
        415, "unsupported_media_type", f"the content type must be {known}, not '{shown}'"
    )
