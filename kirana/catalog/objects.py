"""The kinds of object in a catalog, with the fields that people write in YAML.

Each class checks its own fields. `kirana.catalog.validation` checks objects against each other.
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
from kirana.schema import DTYPES, EVENT_TIME, KEY_DTYPES, MAX_DIMENSIONS, NON_FINITE, Entity, Key

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


def _check_group_name(name: str) -> str:
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
        raise ValueError(f"'{value}' is too long, the limit is 36500d")
    return milliseconds


def _ttl_ms(value: object) -> int:
    milliseconds = _duration_ms(value)
    if not milliseconds:
        raise ValueError(f"'{value}' would keep nothing: leave 'ttl' out if nothing should expire")
    return milliseconds


def _duration_text(milliseconds: int) -> str:
    """Return a duration as text, in the largest unit that gives a whole number."""
    units = reversed(_UNITS_MS.items())
    unit, size = next((name, size) for name, size in units if milliseconds % size == 0)
    return f"{milliseconds // size}{unit}"


def _number(value: object) -> object:
    """Return the float for the texts of `NON_FINITE`, and any other value as it is."""
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _one_of(choices: tuple[str, ...], what: str) -> AfterValidator:
    """Return a validator that accepts only `choices`. `what` names the field in errors."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"unknown {what} '{value}': {did_you_mean(value, choices)}")
        return value

    return AfterValidator(check)


def _check_digest(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError(f"'sha256' must be 64 hexadecimal digits in lower case, not '{value}'")
    return value


def is_delimiter(value: str) -> bool:
    """Return whether a text can separate the fields of a CSV file."""
    return len(value) == 1 and value.isascii() and value not in '"\r\n'


def _check_delimiter(value: str) -> str:
    if not is_delimiter(value):
        raise ValueError(f"'csv_delimiter' must be one ASCII character, not {value!r}")
    return value


def _schema_of(choices: tuple[str, ...]) -> WithJsonSchema:
    """Return the JSON schema of a field with these choices, for the reference of the catalog."""
    return WithJsonSchema({"type": "string", "enum": list(choices)})


Name = Annotated[str, AfterValidator(_check_name)]
GroupName = Annotated[str, AfterValidator(_check_group_name)]
Number = Annotated[float | int, BeforeValidator(_number)]
TtlMs = Annotated[
    int,
    BeforeValidator(_ttl_ms),
    PlainSerializer(_duration_text, return_type=str),
    WithJsonSchema({"type": "duration"}),
]
"""A lifetime in milliseconds, written as `500ms`, `30s`, `15m`, `12h` or `7d`."""


class Strict(BaseModel):
    """The base class of catalog objects. It refuses unknown keys, and suggests known ones."""

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
            known_keys = [field.alias or name for name, field in cls.model_fields.items()]
            for key in value:
                if key not in known_keys:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key '{key}': {hint}",
                        {"key": str(key), "hint": did_you_mean(str(key), known_keys)},
                    )
        return value


class KeyObject(Strict):
    """A key of an entity."""

    name: Name
    dtype: Annotated[str, _one_of(KEY_DTYPES, "dtype of a key"), _schema_of(KEY_DTYPES)] = "string"


class FeatureObject(Strict):
    """A feature of a group: a scalar, or a vector of fixed shape and numeric dtype."""

    name: Name
    dtype: Annotated[str, _one_of(DTYPES, "dtype"), _schema_of(DTYPES)]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=MAX_DIMENSIONS)
    ] = []
    """The shape of a vector. It is empty for a scalar."""
    default: bool | int | float | str | list[Number] | None = None
    """The value of the feature if none is stored. By default: 0, false or the empty string."""
    aliases: list[Name] = []
    """The names of the feature in older schema versions. Requests may use them, too."""


class EntityObject(Strict):
    """A thing that features describe. Several keys make a compound entity, such as user x genre."""

    kind: Literal["entity"] = "entity"
    name: Name
    keys: Annotated[list[KeyObject], Field(min_length=1)]
    """Rows are stored under these keys, in this order."""

    @property
    def resolved(self) -> Entity:
        """The entity in the form that other packages use."""
        return Entity(self.name, tuple(Key(key.name, key.dtype) for key in self.keys))


class FeatureGroupObject(Strict):
    """Features of one entity that are written together and expire together."""

    kind: Literal["feature_group"] = "feature_group"
    name: GroupName
    """The name of the entity, a dot and the name of the group: `product.stats`."""
    ttl: TtlMs | None = None
    """How long after its event time a row expires. Without it, rows never expire."""
    codec: str = "packed"
    """The format of stored rows: `packed`, or `text`, which people and other programs can read."""
    checksum: Literal["none", "crc32"] = "none"
    """`crc32` adds a checksum to each packed row. Damaged rows are then reported as `corrupt`."""
    features: Annotated[list[FeatureObject], Field(min_length=1)]
    """A change of the features makes a new schema version."""

    @property
    def entity(self) -> str:
        """The name of the group's entity."""
        return self.name.partition(".")[0]


class EventTypeObject(Strict):
    """A type of interaction: how many of its events are kept per user, and for how long."""

    kind: Literal["event_type"] = "event_type"
    name: Name
    keep: Annotated[int, Field(ge=1, le=100_000)] = 500
    """How many events to keep per user. The newest are kept."""
    ttl: TtlMs | None = None
    """How long after its timestamp an event expires. Without it, events never expire."""
    repeats: Literal["all", "latest"] = "all"
    """`latest` keeps only the newest event per user and product. `all` keeps every event."""


class SourceObject(Strict):
    """Files that `kirana push --source` loads into a feature group, and what their columns mean."""

    kind: Literal["source"] = "source"
    name: Name
    group: GroupName
    """The feature group of all rows."""
    files: Annotated[list[str], Field(min_length=1)]
    """Files and folders: paths below the catalog directory, other paths, or URLs (`s3://`)."""
    schema_version: Annotated[int, Field(ge=1)] | None = None
    """The schema version of the files. Without it, the newest."""
    rename: dict[str, str] = {}
    """The name of a key or a feature by the name of its column in the files."""
    ignore_extra: bool = False
    """Whether columns that the group does not have are left out. Otherwise they are refused."""
    event_time: str = EVENT_TIME
    """The column of the event times, which may be a folder like `dt=2026-11-28`."""
    csv_delimiter: Annotated[str, AfterValidator(_check_delimiter)] = ","
    """The character between the fields of CSV files."""
    csv_escape: Literal["\\", "none"] | None = None
    """What stands before a quote within a field: a backslash, as Spark writes it, or nothing."""


class CandidateGeneratorObject(Strict):
    """A source of candidates for flows: an implementation and its parameters.

    A `candidates` node names it in `cg_name`.
    """

    kind: Literal["candidate_generator"] = "candidate_generator"
    name: Name
    generator: str
    """The implementation: one of those under "Generators" in the reference."""
    parameters: Annotated[dict[str, Any], Field(alias="with")] = {}
    """The parameters of the implementation."""


class NodeObject(Strict):
    """A node of a flow: its operation, when it runs, and what happens if it fails."""

    op: str
    """The operation: one of those under "Ops of nodes" in the reference."""
    parameters: Annotated[dict[str, Any], Field(alias="with")] = {}
    """The parameters of the operation."""
    timeout_ms: Annotated[int, Field(ge=1)] | None = None
    """The time limit of each attempt. Without it, only the deadline of the request applies."""
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """How many more attempts to make if the node fails."""
    fallback: Literal["empty"] | None = None
    """`empty` lets the flow go on as if a failed node had no items. By default, the flow fails."""
    when: str | None = None
    """A condition over the context and other nodes. If it is false, the node is skipped."""


class FlowObject(Strict):
    """A graph of nodes that returns candidates."""

    kind: Literal["flow"] = "flow"
    name: Name
    graph: Annotated[dict[str, list[str]], Field(min_length=1)]
    """For each node, the nodes that consume its items. The output node has no consumers."""
    nodes: dict[str, NodeObject]
    """The nodes of the graph, by name."""
    context: dict[Name, Literal["number", "text"]] = {}
    """The values of a request, besides ids, that conditions use, for example `hour: number`."""


class InputObject(Strict):
    """A column of the matrix that comes with the request, such as the weights of a generator."""

    name: Name
    default: Number = 0.0
    """The value if a request does not have the column."""


class ModelCallObject(Strict):
    """A call of a model with the matrix, for one output that `score` may use."""

    name: Name
    model: Name
    output: Name
    """The name of the output, both in the model and in `score`."""


class InferflowObject(Strict):
    """The steps from ids to scores: read features, put them in a matrix, and call models."""

    kind: Literal["inferflow"] = "inferflow"
    name: Name
    context: Annotated[dict[str, str], Field(min_length=1)]
    """The names of the ids in a request, each with its entity."""
    rows: str
    """The id that is a list in the request. Each element makes one row of the matrix."""
    resolve: dict[str, str] = {}
    """Ids that are read from features, for example `genre: product.attrs.genre`."""
    inputs: list[InputObject] = []
    """The columns that come with the request."""
    features: list[str] = []
    """The columns of the matrix, in order: `entity.group.feature` or `input.name`."""
    models: Annotated[list[ModelCallObject], Field(min_length=1)]
    """The models to call with the matrix."""
    score: str
    """An expression over the outputs of the models and the inputs."""


class ModelObject(Strict):
    """An ONNX model. It takes a float32 matrix and returns one value per row."""

    kind: Literal["model"] = "model"
    name: Name
    path: str
    """The path of the file below the model root."""
    sha256: Annotated[str, AfterValidator(_check_digest)] | None = None
    """The digest of the published bytes. If given, the copy of these bytes is used, not `path`."""

    @model_validator(mode="after")
    def _stays_under_the_root(self) -> ModelObject:
        parts = self.path.split("/")
        if not self.path or self.path.startswith("/") or ".." in parts or "" in parts:
            raise ValueError(f"'path' must be a plain path below the model root, not '{self.path}'")
        return self


CatalogObject = (
    EntityObject
    | FeatureGroupObject
    | EventTypeObject
    | SourceObject
    | CandidateGeneratorObject
    | FlowObject
    | InferflowObject
    | ModelObject
)


KINDS: dict[str, type[CatalogObject]] = {
    "entity": EntityObject,
    "feature_group": FeatureGroupObject,
    "event_type": EventTypeObject,
    "source": SourceObject,
    "candidate_generator": CandidateGeneratorObject,
    "model": ModelObject,
    "inferflow": InferflowObject,
    "flow": FlowObject,
}
"""The classes by kind. Each kind comes after the kinds that it builds on."""
