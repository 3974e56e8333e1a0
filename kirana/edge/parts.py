"""The parts that the edge calls; local objects or handles of other deployments."""

from __future__ import annotations

from dataclasses import dataclass

from kirana.features import Features
from kirana.flow import FlowRunner
from kirana.inferflow import InferflowRunner
from kirana.interactions import InteractionSource


@dataclass(frozen=True, slots=True)
class Parts:
    features: Features
    interactions: InteractionSource
    flows: FlowRunner
    inferflow: InferflowRunner
