"""The kinds of object in a catalog, as people write them. Each knows what it alone can check.

What takes several objects to check is in `kirana.catalog.validation`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from kirana.errors import did_you_mean
from kirana.schema import DTYPES, KEY_DTYPES, MAX_DIMENSIONS, NON_FINITE, Entity, Key

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_MAX_NAME = 48
_MAX_DURATION_MS = 36_500 * 86_400_000


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise ValueError(
            f"'{name}' is not a valid name: use a letter, then letters, digits, '_' or '-', "
            f"at most {_MAX_NAME} characters"
        )
    return name


def _check_dotted(name: str) -> str:
    entity, dot, group = name.partition(".")
    if not dot:
        raise ValueError(f"'{name}' must be entity.group, like product.stats")
    _check_name(entity)
    _check_name(group)
    return name


def _duration_ms(value: object) -> int:
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError(
            f"'{value}' is not a duration: write a number and a unit (ms, s, m, h or d), like 7d"
        )
    milliseconds = int(match[1]) * _UNITS_MS[match[2]]
    if milliseconds > _MAX_DURATION_MS:
        raise ValueError(f"'{value}' is more than 36500d, the longest duration")
    return milliseconds


def _ttl_ms(value: object) -> int:
    milliseconds = _duration_ms(value)
    if not milliseconds:
        raise ValueError(f"'{value}' would keep nothing: leave it out to keep rows for ever")
    return milliseconds


def _duration_text(milliseconds: int) -> str:
    """Spell a duration in the largest unit that divides it."""
    units = reversed(_UNITS_MS.items())
    name, size = next((n, size) for n, size in units if milliseconds % size == 0)
    return f"{milliseconds // size}{name}"


def _number(value: object) -> object:
    """JSON has no NaN and no infinity: published revisions spell them."""
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _one_of(known: tuple[str, ...], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"unknown {what} '{value}': {did_you_mean(value, known)}")
        return value

    return AfterValidator(check)


def _digest() -> AfterValidator:
    def check(value: str) -> str:
        if not _SHA256.fullmatch(value):
            raise ValueError("a SHA-256 has 64 hexadecimal digits, in lower case")
        return value

    return AfterValidator(check)


def _shown(known: tuple[str, ...]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(known)})


Name = Annotated[str, AfterValidator(_check_name)]
GroupName = Annotated[str, AfterValidator(_check_dotted)]
Number = Annotated[float | int, BeforeValidator(_number)]
TtlMs = Annotated[
    int,
    BeforeValidator(_ttl_ms),
    PlainSerializer(_duration_text, return_type=str),
    WithJsonSchema({"type": "duration"}),
]
"""Milliseconds, written as `500ms`, `30s`, `15m`, `12h` or `7d`."""


class Strict(BaseModel):
    """Refuses keys that it does not know, and says which it does."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: object) -> object:
        if isinstance(value, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in value:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key '{key}': {hint}",
                        {"key": str(key), "hint": did_you_mean(str(key), known)},
                    )
        return value


class KeyObject(Strict):
    name: Name
    dtype: Annotated[str, _one_of(KEY_DTYPES, "dtype of a key"), _shown(KEY_DTYPES)] = "string"


class FeatureObject(Strict):
    name: Name
    dtype: Annotated[str, _one_of(DTYPES, "dtype"), _shown(DTYPES)]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=MAX_DIMENSIONS)
    ] = []
    """Of a vector; none for a scalar."""
    default: bool | int | float | str | list[Number] | None = None
    """Served where no value is stored; 0, false or the empty string if none is given."""
    aliases: list[Name] = []
    """Names that it had in older schema versions: their rows are read, and asked for, by both."""


class EntityObject(Strict):
    """What features are about. Several keys make a compound entity."""

    kind: Literal["entity"] = "entity"
    name: Name
    keys: Annotated[list[KeyObject], Field(min_length=1)]

    @property
    def resolved(self) -> Entity:
        """The entity as others use it."""
        return Entity(self.name, tuple(Key(key.name, key.dtype) for key in self.keys))


class FeatureGroupObject(Strict):
    """Features of one entity that are written, and expire, together."""

    kind: Literal["feature_group"] = "feature_group"
    name: GroupName
    """`entity.group`."""
    ttl: TtlMs | None = None
    """After its event time a row expires; never without it."""
    codec: str = "packed"
    checksum: Literal["none", "crc32"] = "none"
    """Of each packed row: what was damaged is `corrupt`. Databases have checksums of their own."""
    features: Annotated[list[FeatureObject], Field(min_length=1)]
    """Whatever changes here makes the next schema version."""

    @property
    def entity(self) -> str:
        """The name of the entity that the group is of."""
        return self.name.partition(".")[0]


class EventTypeObject(Strict):
    """A kind of interaction: how many are kept a user, for how long, and what repeats do."""

    kind: Literal["event_type"] = "event_type"
    name: Name
    keep: Annotated[int, Field(ge=1, le=100_000)] = 500
    """The newest so many of each user."""
    ttl: TtlMs | None = None
    """After its timestamp an event is gone; never without it."""
    repeats: Literal["all", "latest"] = "all"
    """`latest` keeps a product once, at its newest time."""


class CandidateGeneratorObject(Strict):
    """What `cg_name` of a `candidates` node names: an implementation and its parameters."""

    kind: Literal["candidate_generator"] = "candidate_generator"
    name: Name
    generator: str
    """One of the generators below."""
    parameters: Annotated[dict[str, Any], Field(alias="with")] = {}
    """Its parameters."""


class NodeObject(Strict):
    """A step of a flow: an operation, its parameters, and what happens when it fails."""

    op: str
    """One of the ops below."""
    parameters: Annotated[dict[str, Any], Field(alias="with")] = {}
    """Its parameters."""
    timeout_ms: Annotated[int, Field(ge=1)] | None = None
    """For each attempt; without it, what is left of the request's time."""
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """Attempts after the first, while there is time."""
    fallback: Literal["empty"] | None = None
    """What it gives when it failed; without it, the flow fails."""
    when: str | None = None
    """An expression over the context and what it consumes; where it is false, it is skipped."""


class FlowObject(Strict):
    """A graph as an adjacency list: each node, and the nodes that consume what it gives."""

    kind: Literal["flow"] = "flow"
    name: Name
    graph: Annotated[dict[str, list[str]], Field(min_length=1)]
    """Each node with the nodes that consume what it gives; one node has none."""
    nodes: dict[str, NodeObject]
    context: dict[Name, Literal["number", "text"]] = {}
    """What conditions read of a request beside its ids, which are text: `hour: number`."""


class InputObject(Strict):
    """A column that comes with the request (a generator's score), not from the feature store."""

    name: Name
    default: Number = 0.0
    """For a request without it."""


class ModelCallObject(Strict):
    """One model over the matrix: its output tensor, under whose name the score knows it."""

    name: Name
    model: Name
    output: Name
    """The model's output, and its name in `score`."""


class InferflowObject(Strict):
    """From context ids to scores: entities, the columns of the matrix, models, the score."""

    kind: Literal["inferflow"] = "inferflow"
    name: Name
    context: Annotated[dict[str, str], Field(min_length=1)]
    """The ids of a request, each with the entity that it names."""
    rows: str
    """The id that comes as a list, one row each."""
    resolve: dict[str, str] = {}
    """Ids that are found through a feature, `entity.group.feature`."""
    inputs: list[InputObject] = []
    features: list[str] = []
    """The columns of the matrix: `entity.group.feature`, or `input.name`."""
    models: Annotated[list[ModelCallObject], Field(min_length=1)]
    score: str
    """An expression over the models' outputs and the inputs."""


class ModelObject(Strict):
    """An ONNX model under the model root: a float32 matrix in, one value a row out."""

    kind: Literal["model"] = "model"
    name: Name
    path: str
    """Below the model root."""
    sha256: Annotated[str, _digest()] | None = None
    """Of its bytes, as published: the copy of these bytes is taken, and not the file at `path`."""

    @model_validator(mode="after")
    def _stays_under_the_root(self) -> ModelObject:
        parts = self.path.split("/")
        if not self.path or self.path.startswith("/") or ".." in parts or "" in parts:
            raise ValueError(f"'{self.path}' must be a path below the model root, without '..'")
        return self


CatalogObject = (
    EntityObject
    | FeatureGroupObject
    | EventTypeObject
    | CandidateGeneratorObject
    | FlowObject
    | InferflowObject
    | ModelObject
)


KINDS: dict[str, type[CatalogObject]] = {
    "entity": EntityObject,
    "feature_group": FeatureGroupObject,
    "event_type": EventTypeObject,
    "candidate_generator": CandidateGeneratorObject,
    "model": ModelObject,
    "inferflow": InferflowObject,
    "flow": FlowObject,
}
"""The kinds by name, in the order in which they build on one another."""
