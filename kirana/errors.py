"""The tree of errors.

    KiranaError
    ├── InvalidInput            the input is wrong; `field` names the wrong field
    │   └── TooLarge            the input exceeds a limit
    ├── Unknown                 the input names something that does not exist
    ├── CatalogError            objects can't be published or read; `problems` lists the reasons
    ├── Conflict                the current state does not allow the change
    ├── ConfigurationError      the settings are wrong, or do not work on this machine
    ├── NodeError               a node of a flow failed and has no fallback
    ├── ModelFailed             a model can't score the rows; a retry would fail too
    ├── Unavailable             a part or a server does not answer, or refuses the call
    │   ├── Overloaded          too many other calls are waiting
    │   ├── StoreFull           a store has no space left
    │   └── ConnectionLost      a client's connection broke; the request may have been handled
    └── DeadlineExceeded        the deadline of the request has passed

These errors do not depend on HTTP. `kirana.edge.errors` maps them to statuses, and has one more
class, `HttpError`. `kirana.client.errors` turns replies back into errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

MAX_QUOTED_CHARS = 200
"""The most characters of a name that a message quotes."""

MAX_PROBLEM_CHARS = 2_000
"""The most characters of the message of a `Problem`."""


def shortened(text: str, limit: int = MAX_QUOTED_CHARS) -> str:
    """Return `text`, or its first `limit` characters and its length if it has more."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for the end of a message, such as "did you mean 'click'?".

    The hint is the known name that is closest to `name`. If none is close, the hint lists the
    known names, at most 10 of them, or says that none is defined.
    """
    names = sorted(known)
    # The search takes longer than linear time.
    close = get_close_matches(name, names, n=1) if len(name) <= MAX_QUOTED_CHARS else []
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return "none is defined"
    if len(names) == 1:
        return f"there is only '{names[0]}'"
    listed = ", ".join(f"'{known_name}'" for known_name in names[:10])
    return f"choose one of {listed}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")


FieldPath = tuple[str | int, ...]
"""The path to a field: names, and indexes of lists."""


def field_text(path: FieldPath) -> str:
    """Return a path as text, for example `events[3].timestamp`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


class KiranaError(Exception):
    """The base class of Kirana's errors.

    `code` is stable and meant for programs; the message is meant for people. `path` leads to the
    wrong field, and is empty if the error has no field. A function that catches the error may
    replace `path` with the path in the whole request, and raise the error again.
    """

    code = "internal"

    def __init__(self, message: str, *, field: str | FieldPath | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path: FieldPath = (field,) if isinstance(field, str) else field or ()
        self.request_id: str | None = None
        """The id of the failed call, set by `kirana.client`. It is None on the server."""

    @property
    def field(self) -> str | None:
        """The path as text, or None if there is no path."""
        return field_text(self.path) if self.path else None

    def __str__(self) -> str:
        """Return the message, with the field before it unless the message names the field."""
        field = self.field
        if field is None or self.message.startswith(field):
            return self.message
        name = field.rpartition(".")[2]
        return self.message if f"'{name}'" in self.message else f"{field}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(
    kind: type[KiranaError], args: tuple[object, ...], state: dict[str, object]
) -> KiranaError:
    # `args` holds the message, but the constructors of some subclasses take other arguments.
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidInput(KiranaError):
    """Wrong input. `field` names the wrong field."""

    code = "invalid_input"


class TooLarge(InvalidInput):
    """Input that exceeds a limit."""

    code = "too_large"


class Unknown(KiranaError):
    """A name of something that does not exist. `code` is `unknown_<kind>`.

    The message suggests names from `known`.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str] = (),
        *,
        field: str | FieldPath | None = None,
    ) -> None:
        label = kind.replace("_", " ")
        quoted = shortened(name)
        super().__init__(f"unknown {label} '{quoted}': {did_you_mean(name, known)}", field=field)
        self.kind = kind
        self.name = name
        self.code = f"unknown_{kind}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a catalog.

    `file` is a file, a folder, a node of ZooKeeper, a place in a request, or "". `line` counts from
    1, and is 0 if it is unknown. `path` leads to the value in the object. It is "" for the whole
    object.
    """

    message: str
    file: str = ""
    line: int = 0
    path: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shortened(self.message, MAX_PROBLEM_CHARS))

    def __str__(self) -> str:
        location = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(text for text in (location, self.path, self.message) if text)


class CatalogError(KiranaError):
    """Objects that can't be published or read. `problems` lists the reasons."""

    code = "invalid_catalog"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class Conflict(KiranaError):
    """A change that the current state does not allow, for example because of another publish."""

    code = "conflict"


class ConfigurationError(KiranaError):
    """Settings that are wrong, or that do not work on this machine."""

    code = "configuration"


class NodeError(KiranaError):
    """The failure of a node that has no fallback.

    If the node failed with `Unavailable`, `DeadlineExceeded` or `ModelFailed`, that error is raised
    instead.
    """

    code = "node_failed"

    def __init__(self, flow: str, node: str, reason: str) -> None:
        super().__init__(f"flow '{flow}', node '{node}': {reason}")
        self.flow = flow
        self.node = node


class ModelFailed(KiranaError):
    """A model that can't score a matrix, or an inferflow whose score has the wrong shape.

    `kind` is "model" or "inferflow", and `model` is the name. `wrong_rows` is True if an output of
    the model has the wrong number of rows. Errors that a client raises always have False. Neither
    clients nor nodes retry the call, because the same input would fail again.
    """

    code = "model_failed"

    def __init__(
        self, model: str, reason: str, *, wrong_rows: bool = False, kind: str = "model"
    ) -> None:
        super().__init__(f"{kind} '{model}': {reason}")
        self.model = model
        self.wrong_rows = wrong_rows


class Unavailable(KiranaError):
    """A part or a server that does not answer, or that refuses the call for now."""

    code = "unavailable"


class Overloaded(Unavailable):
    """A call that was refused because too many other calls are waiting. A retry may succeed."""

    code = "overloaded"


class StoreFull(Unavailable):
    """A store that has no space left for a write."""

    code = "store_full"


class ConnectionLost(Unavailable):
    """A client's connection that broke. The server may have handled the request."""

    code = "connection_lost"


class DeadlineExceeded(KiranaError):
    """A request whose deadline has passed."""

    code = "deadline_exceeded"
