"""The serving graph: the deployments that it binds, and their options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kirana.actors.actor import Actors
from kirana.errors import ConfigurationError
from kirana.features.part import FEATURES
from kirana.flow.part import FLOWS
from kirana.graphs import serving
from kirana.graphs.serving import graph, max_replicas
from kirana.interactions import InteractionSource
from kirana.interactions.part import INTERACTIONS
from kirana.part import Part
from kirana.serving import placement as placements
from kirana.serving.parts import PARTS
from kirana.serving.settings import Settings

SETTINGS = Settings(
    catalog="dir:///c", features="lmdb:///f", interactions="lmdb:///i", models="file:///m"
)

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"Ingres": {}}, "unknown deployment 'Ingres': did you mean 'Ingress'"),
    ({"Ingress": {"num_replica": 2}}, "num_replica"),
    ({"Ingress": {"num_replicas": "many"}}, "num_replicas"),
    ({"Ingress": {"num_replicas": 0}}, "num_replicas"),
    ({"Ingress": {"num_replicas": 2, "autoscaling_config": {"max_replicas": 3}}}, "num_replicas"),
    ({"Ingress": {"autoscaling_config": {"min_replicas": 3, "max_replicas": 2}}}, "max_replicas"),
    ({"Ingress": {"ray_actor_options": {"num_cpu": 1}}}, "num_cpu"),
    ({"FeatureStore": {"max_ongoing_requests": -1}}, "max_ongoing_requests"),
]


@pytest.mark.parametrize(("options", "word"), MISTAKES, ids=[word for _, word in MISTAKES])
def test_invalid_options_are_reported_in_one_message(options: dict[str, Any], word: str) -> None:
    settings = SETTINGS.model_copy(update={"placement": "spread"})
    with pytest.raises(ConfigurationError, match=r"^deployments: ") as caught:
        graph(settings, options)
    assert word in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.field == "deployments"


@pytest.mark.parametrize("max_ongoing", [1, 512, 4_000])
def test_the_limit_of_serve_is_well_above_the_setting_max_ongoing(max_ongoing: int) -> None:
    settings = SETTINGS.model_copy(update={"max_ongoing": max_ongoing})
    assert graph(settings)._bound_deployment.max_ongoing_requests == 4 * max_ongoing
    own = {"Ingress": {"max_ongoing_requests": 7}}
    assert graph(settings, own)._bound_deployment.max_ongoing_requests == 7


def test_the_setting_replicas_overrides_autoscaling() -> None:
    settings = SETTINGS.model_copy(update={"replicas": 2})
    options = {"Ingress": {"autoscaling_config": {"min_replicas": 1, "max_replicas": 4}}}
    bound = graph(settings, options)._bound_deployment
    assert bound.num_replicas == 2
    assert max_replicas(settings, options)["ingress"] == 2


TALLY = Part(
    name="tally",
    protocol=InteractionSource,
    build=INTERACTIONS.build,
    at_edge=False,
)
"""A part that has actors and no deployment."""


@pytest.mark.parametrize(
    ("placement", "caller", "owner"),
    [("fused", FLOWS, "Ingress"), ("spread", FLOWS, "Flows"), ("spread", FEATURES, "FeatureStore")],
)
def test_actors_belong_to_the_deployment_that_has_their_part(
    placement: str, caller: Part[Any], owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"placement": placement})
    calling = replace(caller, calls=(*caller.calls, TALLY))
    parts = [TALLY, *(calling if part is caller else part for part in PARTS)]
    for module in (serving, placements):
        monkeypatch.setattr(module, "PARTS", parts)
    kind = Actors(TALLY, lambda wiring: [], lambda settings: ["tally"], {"num_cpus": 0})
    monkeypatch.setattr(serving, "ACTORS", [kind])
    actors = actors_of(graph(settings))
    assert {name for name, own_actors in actors.items() if own_actors} == {owner}
    (actor,) = actors[owner]
    assert (actor.name, actor.actor_options) == ("tally", {"num_cpus": 0})
    assert (actor.init_args, actor.init_kwargs) == ((), {}), "Serve shows the arguments"


def actors_of(application: Any) -> dict[str, list[Any]]:
    """Return the actors of each deployment of a graph."""
    bound = application._bound_deployment
    actors = {bound.name: bound._deployment_config.deployment_actors or []}
    for argument in bound.init_args:
        if isinstance(argument, dict):
            for value in argument.values():
                if hasattr(value, "_bound_deployment"):
                    actors |= actors_of(value)
    return actors
