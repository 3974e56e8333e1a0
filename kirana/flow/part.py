"""The declaration of the flows part."""

from __future__ import annotations

from kirana.features.part import FEATURES
from kirana.flow.source import FlowRunner
from kirana.inferflow.part import INFERFLOW
from kirana.interactions.part import INTERACTIONS
from kirana.part import Part, Wiring


def _build(wiring: Wiring) -> FlowRunner:
    from kirana.flow.executor import FlowService
    from kirana.flow.nodes.base import Services

    services = Services(wiring[FEATURES], wiring[INTERACTIONS], wiring[INFERFLOW])
    return FlowService(services, wiring.source, wiring.metrics)


FLOWS = Part(
    name="flows",
    deployment="Flows",
    protocol=FlowRunner,
    build=_build,
    calls=(FEATURES, INTERACTIONS, INFERFLOW),
)
