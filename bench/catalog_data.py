"""A catalog of about 5,000 objects, as a marketplace with many teams would have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

ENTITIES = 5
GROUPS = 2_400
INFERFLOWS = 1_200
FLOWS = 1_200
EVENT_TYPES = 150
GENERATORS = 45
OBJECTS_PER_FILE = 100


def write_large_catalog(folder: Path) -> int:
    """Write the files of the catalog, and return the number of objects in them.

    The folder must already hold the catalog of `bench.rank.make_fixture`: the inferflows call its
    model `mlp`.
    """
    kinds = {
        "entities": [_entity(n) for n in range(ENTITIES)],
        "groups": [*map(_group, range(GROUPS)), _LISTS],
        # With the `x` at the end, no name is a prefix of another one.
        "events": [f"kind: event_type\nname: ev{n}x\nkeep: 100\n" for n in range(EVENT_TYPES)],
        "generators": [_generator(n) for n in range(GENERATORS)],
        "inferflows": [_inferflow(n) for n in range(INFERFLOWS)],
        "flows": [_flow(n) for n in range(FLOWS)],
    }
    for name, objects in kinds.items():
        for start in range(0, len(objects), OBJECTS_PER_FILE):
            number = start // OBJECTS_PER_FILE or ""
            (folder / f"{name}{number}.yaml").write_text(
                "---\n".join(objects[start : start + OBJECTS_PER_FILE])
            )
    return sum(map(len, kinds.values()))


def _entity(number: int) -> str:
    return f"kind: entity\nname: e{number}\nkeys: [{{name: e{number}_id}}]\n"


def _group(number: int) -> str:
    features = _lines(f"{{name: f{n}, dtype: float32, default: 0.5}}" for n in range(20))
    return (
        f"kind: feature_group\nname: e{number % ENTITIES}.g{number}\nttl: 7d\nfeatures:\n{features}"
    )


_LISTS = (
    "kind: feature_group\nname: e0.lists\nfeatures:\n"
    "  - {name: ids, dtype: int64, shape: [8]}\n  - {name: weights, dtype: float32, shape: [8]}\n"
)


def _generator(number: int) -> str:
    return (
        f"kind: candidate_generator\nname: cg{number}\ngenerator: neighbours\n"
        "with: {ids: e0.lists.ids, weights: e0.lists.weights, decay: 0.8}\n"
    )


def _inferflow(number: int) -> str:
    groups = [ENTITIES * ((number * 7 + n) % (GROUPS // ENTITIES)) for n in range(3)]
    features = _lines(f"e0.g{group}.f{n}" for group in groups for n in range(20))
    return (
        f"kind: inferflow\nname: i{number}\ncontext: {{e1_id: e1, e0_id: e0}}\nrows: e0_id\n"
        f"features:\n{features}"
        "models:\n  - {name: s, model: mlp, output: p_click}\nscore: p_click\n"
    )


def _flow(number: int) -> str:
    return f"""kind: flow
name: fl{number}
graph:
  recent: [similar]
  similar: [ranked]
  ranked: [top]
  top: []
nodes:
  recent: {{op: interactions, with: {{event: ev{number % EVENT_TYPES}x, last: 20}}}}
  similar:
    op: candidates
    with: {{cg_name: cg{number % GENERATORS}, limit: 100}}
    timeout_ms: 40
    fallback: empty
  ranked: {{op: infer, with: {{model_id: i{number % INFERFLOWS}}}}}
  top: {{op: top_k, with: {{k: 20, by: score}}}}
"""


def _lines(items: Iterable[str]) -> str:
    return "".join(f"  - {item}\n" for item in items)
