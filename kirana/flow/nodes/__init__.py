"""The kinds of node, by the `op` that a flow names.

To add one, add a module and an entry in `OPS`.
"""

from kirana.flow.nodes.base import NodeKind
from kirana.flow.nodes.candidates import CandidatesNode
from kirana.flow.nodes.filter import FilterNode
from kirana.flow.nodes.infer import InferNode
from kirana.flow.nodes.interactions import InteractionsNode
from kirana.flow.nodes.merge import MergeNode
from kirana.flow.nodes.top_k import TopKNode

OPS: dict[str, NodeKind] = {
    "candidates": CandidatesNode,
    "filter": FilterNode,
    "infer": InferNode,
    "interactions": InteractionsNode,
    "merge": MergeNode,
    "top_k": TopKNode,
}

__all__ = ["OPS"]
