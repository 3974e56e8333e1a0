from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Ids(_message.Message):
    __slots__ = ("texts", "numbers", "one")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    ONE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    one: bool
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Iterable[int]] = ..., one: _Optional[bool] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("dtype", "shape", "data", "lengths", "nulls")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    NULLS_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    lengths: _containers.RepeatedScalarFieldContainer[int]
    nulls: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., lengths: _Optional[_Iterable[int]] = ..., nulls: _Optional[bytes] = ...) -> None: ...

class FeatureBlock(_message.Message):
    __slots__ = ("features", "block")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    block: Block
    def __init__(self, features: _Optional[_Iterable[str]] = ..., block: _Optional[_Union[Block, _Mapping]] = ...) -> None: ...

class FeaturesGet(_message.Message):
    __slots__ = ("entity", "keys", "features", "provenance")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Ids
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    entity: str
    keys: _containers.MessageMap[str, Ids]
    features: _containers.RepeatedScalarFieldContainer[str]
    provenance: bool
    def __init__(self, entity: _Optional[str] = ..., keys: _Optional[_Mapping[str, Ids]] = ..., features: _Optional[_Iterable[str]] = ..., provenance: _Optional[bool] = ...) -> None: ...

class FeaturesReply(_message.Message):
    __slots__ = ("features", "dtypes", "blocks", "status", "revision", "provenance", "age_ms", "tier")
    class StatusEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class ProvenanceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class AgeMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class TierEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    dtypes: _containers.RepeatedScalarFieldContainer[str]
    blocks: _containers.RepeatedCompositeFieldContainer[FeatureBlock]
    status: _containers.ScalarMap[str, bytes]
    revision: int
    provenance: _containers.ScalarMap[str, bytes]
    age_ms: _containers.ScalarMap[str, bytes]
    tier: _containers.ScalarMap[str, bytes]
    def __init__(self, features: _Optional[_Iterable[str]] = ..., dtypes: _Optional[_Iterable[str]] = ..., blocks: _Optional[_Iterable[_Union[FeatureBlock, _Mapping]]] = ..., status: _Optional[_Mapping[str, bytes]] = ..., revision: _Optional[int] = ..., provenance: _Optional[_Mapping[str, bytes]] = ..., age_ms: _Optional[_Mapping[str, bytes]] = ..., tier: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class Times(_message.Message):
    __slots__ = ("ms", "one")
    MS_FIELD_NUMBER: _ClassVar[int]
    ONE_FIELD_NUMBER: _ClassVar[int]
    ms: _containers.RepeatedScalarFieldContainer[int]
    one: bool
    def __init__(self, ms: _Optional[_Iterable[int]] = ..., one: _Optional[bool] = ...) -> None: ...

class FeaturesPut(_message.Message):
    __slots__ = ("group", "keys", "columns", "event_time", "schema_version")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Ids
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Block
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Block, _Mapping]] = ...) -> None: ...
    GROUP_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    group: str
    keys: _containers.MessageMap[str, Ids]
    columns: _containers.MessageMap[str, Block]
    event_time: Times
    schema_version: int
    def __init__(self, group: _Optional[str] = ..., keys: _Optional[_Mapping[str, Ids]] = ..., columns: _Optional[_Mapping[str, Block]] = ..., event_time: _Optional[_Union[Times, _Mapping]] = ..., schema_version: _Optional[int] = ...) -> None: ...

class FeaturesPutReply(_message.Message):
    __slots__ = ("written", "stale", "expired", "accepted")
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    written: int
    stale: int
    expired: int
    accepted: int
    def __init__(self, written: _Optional[int] = ..., stale: _Optional[int] = ..., expired: _Optional[int] = ..., accepted: _Optional[int] = ...) -> None: ...

class FeaturesDelete(_message.Message):
    __slots__ = ("group", "keys", "event_time", "force")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Ids
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...
    GROUP_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    group: str
    keys: _containers.MessageMap[str, Ids]
    event_time: Times
    force: bool
    def __init__(self, group: _Optional[str] = ..., keys: _Optional[_Mapping[str, Ids]] = ..., event_time: _Optional[_Union[Times, _Mapping]] = ..., force: _Optional[bool] = ...) -> None: ...

class FeaturesDeleteReply(_message.Message):
    __slots__ = ("deleted", "stale", "accepted")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    stale: int
    accepted: int
    def __init__(self, deleted: _Optional[int] = ..., stale: _Optional[int] = ..., accepted: _Optional[int] = ...) -> None: ...

class InteractionsPost(_message.Message):
    __slots__ = ("types", "events", "user_ids", "product_ids", "timestamps", "metadata")
    TYPES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    types: _containers.RepeatedScalarFieldContainer[str]
    events: _containers.RepeatedScalarFieldContainer[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    product_ids: _containers.RepeatedScalarFieldContainer[str]
    timestamps: _containers.RepeatedScalarFieldContainer[int]
    metadata: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, types: _Optional[_Iterable[str]] = ..., events: _Optional[_Iterable[int]] = ..., user_ids: _Optional[_Iterable[str]] = ..., product_ids: _Optional[_Iterable[str]] = ..., timestamps: _Optional[_Iterable[int]] = ..., metadata: _Optional[_Iterable[str]] = ...) -> None: ...

class InteractionsPostReply(_message.Message):
    __slots__ = ("accepted", "expired")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    expired: int
    def __init__(self, accepted: _Optional[int] = ..., expired: _Optional[int] = ...) -> None: ...

class InteractionsQuery(_message.Message):
    __slots__ = ("user_ids", "events", "last", "since", "until", "limit")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    events: _containers.RepeatedScalarFieldContainer[str]
    last: int
    since: int
    until: int
    limit: int
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ..., events: _Optional[_Iterable[str]] = ..., last: _Optional[int] = ..., since: _Optional[int] = ..., until: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class InteractionList(_message.Message):
    __slots__ = ("product_ids", "timestamps", "metadata")
    PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    product_ids: _containers.RepeatedScalarFieldContainer[str]
    timestamps: _containers.RepeatedScalarFieldContainer[int]
    metadata: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, product_ids: _Optional[_Iterable[str]] = ..., timestamps: _Optional[_Iterable[int]] = ..., metadata: _Optional[_Iterable[str]] = ...) -> None: ...

class InteractionsReply(_message.Message):
    __slots__ = ("user_ids", "events", "lists")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    events: _containers.RepeatedScalarFieldContainer[str]
    lists: _containers.RepeatedCompositeFieldContainer[InteractionList]
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ..., events: _Optional[_Iterable[str]] = ..., lists: _Optional[_Iterable[_Union[InteractionList, _Mapping]]] = ...) -> None: ...

class InteractionsDeleteReply(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...

class Infer(_message.Message):
    __slots__ = ("context", "inputs", "top_k", "returned")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Ids
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Block
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Block, _Mapping]] = ...) -> None: ...
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    context: _containers.MessageMap[str, Ids]
    inputs: _containers.MessageMap[str, Block]
    top_k: int
    returned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, context: _Optional[_Mapping[str, Ids]] = ..., inputs: _Optional[_Mapping[str, Block]] = ..., top_k: _Optional[int] = ..., returned: _Optional[_Iterable[str]] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("ids", "scores", "outputs", "columns", "matrix", "defaults", "revision")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class DefaultsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: bytes
    outputs: _containers.ScalarMap[str, bytes]
    columns: _containers.RepeatedScalarFieldContainer[str]
    matrix: Block
    defaults: _containers.ScalarMap[str, int]
    revision: int
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., scores: _Optional[bytes] = ..., outputs: _Optional[_Mapping[str, bytes]] = ..., columns: _Optional[_Iterable[str]] = ..., matrix: _Optional[_Union[Block, _Mapping]] = ..., defaults: _Optional[_Mapping[str, int]] = ..., revision: _Optional[int] = ...) -> None: ...
