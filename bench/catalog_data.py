"""A catalog of 5,000 objects, as a marketplace of many teams would have it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

ENTITIES = 5
GROUPS = 2_400
INFERFLOWS = 1_200
FLOWS = 1_200
EVENT_TYPES = 150
GENERATORS = 45
A_FILE = 100


def write_large_catalog(folder: Path) -> int:
    """Write the files beside those of the ranker's catalog, whose model the inferflows call.

    Return how many objects that are.
    """
    kinds = {
        "entities": [_entity(at) for at in range(ENTITIES)],
        "groups": [*map(_group, range(GROUPS)), _LISTS],
        "events": [f"kind: event_type\nname: ev{at}x\nkeep: 100\n" for at in range(EVENT_TYPES)],
        "generators": [_generator(at) for at in range(GENERATORS)],
        "inferflows": [_inferflow(at) for at in range(INFERFLOWS)],
        "flows": [_flow(at) for at in range(FLOWS)],
    }
    for name, objects in kinds.items():
        for at in range(0, len(objects), A_FILE):
            number = at // A_FILE or ""
            (folder / f"{name}{number}.yaml").write_text("---\n".join(objects[at : at + A_FILE]))
    return sum(map(len, kinds.values()))


def _entity(at: int) -> str:
    return f"kind: entity\nname: e{at}\nkeys: [{{name: e{at}_id}}]\n"


def _group(at: int) -> str:
    features = _lines(f"{{name: f{n}, dtype: float32, default: 0.5}}" for n in range(20))
    return f"kind: feature_group\nname: e{at % ENTITIES}.g{at}\nttl: 7d\nfeatures:\n{features}"


_LISTS = (
    "kind: feature_group\nname: e0.lists\nfeatures:\n"
    "  - {name: ids, dtype: int64, shape: [8]}\n  - {name: weights, dtype: float32, shape: [8]}\n"
)


def _generator(at: int) -> str:
    return (
        f"kind: candidate_generator\nname: cg{at}\ngenerator: neighbours\n"
        "with: {ids: e0.lists.ids, weights: e0.lists.weights, decay: 0.8}\n"
    )


def _inferflow(at: int) -> str:
    groups = [ENTITIES * ((at * 7 + n) % (GROUPS // ENTITIES)) for n in range(3)]
    features = _lines(f"e0.g{group}.f{n}" for group in groups for n in range(20))
    return (
        f"kind: inferflow\nname: i{at}\ncontext: {{e1_id: e1, e0_id: e0}}\nrows: e0_id\n"
        f"features:\n{features}"
        "models:\n  - {name: s, model: mlp, output: p_click}\nscore: p_click\n"
    )


def _flow(at: int) -> str:
    return f"""kind: flow
name: fl{at}
graph:
  recent: [similar]
  similar: [ranked]
  ranked: [top]
  top: []
nodes:
  recent: {{op: interactions, with: {{event: ev{at % EVENT_TYPES}x, last: 20}}}}
  similar:
    op: candidates
    with: {{cg_name: cg{at % GENERATORS}, limit: 100}}
    timeout_ms: 40
    fallback: empty
  ranked: {{op: infer, with: {{model_id: i{at % INFERFLOWS}}}}}
  top: {{op: top_k, with: {{k: 20, by: score}}}}
"""


def _lines(items: Iterable[str]) -> str:
    return "".join(f"  - {each}\n" for each in items)
