"""The one tree of errors.

    KiranaError
    ├── InvalidInput            what was sent is wrong; `field` names it
    │   └── TooLarge            it is more than a limit allows
    ├── Unknown                 it names something that the catalog does not have
    ├── CatalogError            objects of a catalog that can't go live; `problems` lists them
    ├── Conflict                somebody else was first
    ├── ConfigurationError      the settings can't work on this machine
    ├── NodeError               a node of a flow failed and has no fallback
    ├── ModelFailed             a model can't score these rows; trying again changes nothing
    ├── Unavailable             a part that the request needs does not answer
    │   ├── StoreFull           a store has no room left
    │   └── ConnectionLost      a client's connection broke: what it sent may have been done
    └── DeadlineExceeded        the time that the request was given is over

An error carries what it is about; `kirana.edge.errors` alone turns it into an HTTP status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known name is close to `name`, or list what there is: the end of a message."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return "there is none"
    if len(names) == 1:
        return f"there is only '{names[0]}'"
    shown = ", ".join(f"'{each}'" for each in names[:10])
    return f"choose one of {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")


FieldPath = tuple[str | int, ...]
"""The way to a field: names, and indexes of lists."""


def field_text(path: FieldPath) -> str:
    """Write a path as people read it: `events[3].timestamp`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


class KiranaError(Exception):
    """The root: `code` is stable and for programs, the message is for people.

    `path` leads to what it is about. Who knows more of the request may replace it on the way up.
    """

    code = "internal"

    def __init__(self, message: str, *, field: str | FieldPath | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path: FieldPath = (field,) if isinstance(field, str) else field or ()
        self.request_id: str | None = None
        """Of the call that a client made; None elsewhere."""

    @property
    def field(self) -> str | None:
        """The path as text; None where there is none."""
        return field_text(self.path) if self.path else None

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(
    kind: type[KiranaError], args: tuple[object, ...], state: dict[str, object]
) -> KiranaError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidInput(KiranaError):
    code = "invalid_input"


class TooLarge(InvalidInput):
    code = "too_large"


class Unknown(KiranaError):
    """`kind` and `name` of what is not there; `code` is `unknown_<kind>`."""

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str] = (),
        *,
        field: str | FieldPath | None = None,
    ) -> None:
        label = kind.replace("_", " ")
        super().__init__(f"unknown {label} '{name}': {did_you_mean(name, known)}", field=field)
        self.kind = kind
        self.name = name
        self.code = f"unknown_{kind}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a catalog: where (file, line, path in the object), and why."""

    message: str
    file: str = ""
    line: int = 0
    path: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.path, self.message) if part)


class CatalogError(KiranaError):
    code = "invalid_catalog"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class Conflict(KiranaError):
    code = "conflict"


class ConfigurationError(KiranaError):
    code = "configuration"


class NodeError(KiranaError):
    """`node` of `flow` failed; the cause is chained."""

    code = "node_failed"

    def __init__(self, flow: str, node: str, reason: str) -> None:
        super().__init__(f"flow '{flow}', node '{node}': {reason}")
        self.flow = flow
        self.node = node


class ModelFailed(KiranaError):
    """`model` raised an error on its input, or (`wrong_rows`) returned another number of rows.

    The same input fails again, so neither clients nor nodes try again.
    """

    code = "model_failed"

    def __init__(self, model: str, reason: str, *, wrong_rows: bool = False) -> None:
        super().__init__(f"model '{model}': {reason}")
        self.model = model
        self.wrong_rows = wrong_rows


class Unavailable(KiranaError):
    code = "unavailable"


class StoreFull(Unavailable):
    code = "store_full"


class ConnectionLost(Unavailable):
    code = "connection_lost"


class DeadlineExceeded(KiranaError):
    code = "deadline_exceeded"
