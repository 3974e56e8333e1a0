"""The table of parts: requirements that every part must meet."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any, ClassVar

import pytest
import yaml

from kirana.errors import ConfigurationError
from kirana.part import Part
from kirana.request import RequestContext
from kirana.serving.assembly import Assembly, open_catalog
from kirana.serving.parts import INGRESS, PARTS, store_settings
from kirana.serving.settings import Settings
from kirana.streams.part import STREAMS
from kirana.streams.source import ConsumerReport
from tests.e2e.serving import SERVE_CONFIG
from tests.support import Shop

every_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)


@every_part
def test_the_last_parameter_of_a_protocol_method_is_the_request_context(part: Part[Any]) -> None:
    assert part.methods
    for name in part.methods:
        method = inspect.signature(getattr(part.protocol, name), eval_str=True)
        *_, last = method.parameters.values()
        assert (last.name, last.annotation) == ("context", RequestContext), name


@every_part
def test_a_part_calls_only_parts_before_it(part: Part[Any]) -> None:
    before = PARTS[: PARTS.index(part)]
    assert set(part.calls) <= set(before)


@every_part
def test_the_settings_of_a_part_exist(part: Part[Any]) -> None:
    if part.settings is not None:
        assert issubclass(Settings, part.settings)
    for store in part.stores:
        assert part.settings is not None
        assert store.name in part.settings.model_fields


class Idle:
    """An actor that has nothing to do."""

    async def report(self) -> tuple[str, ConsumerReport]:
        return "", ConsumerReport([], 0, 0, 0)


def settings_with(part: Part[Any], shop: Shop) -> Settings:
    """Return settings in which the part is on."""
    update = {"streams": "kafka://127.0.0.1:1/rows"} if part is STREAMS else {}
    return shop.settings.model_copy(update=update)


@every_part
async def test_a_built_part_implements_its_protocol(part: Part[Any], shop: Shop) -> None:
    settings = settings_with(part, shop)
    assembly = Assembly(settings, open_catalog(settings), actor=lambda name: Idle())
    built = assembly[part]
    for name in (*part.methods, "prepare", "health"):
        assert inspect.iscoroutinefunction(getattr(built, name)), name
    await built.prepare(shop.revision)
    assert (await built.health(shop.revision)).reason is None
    await assembly.close()


class RecordingAssembly(Assembly):
    """An assembly that records in `requested` which parts are requested from it."""

    requested: ClassVar[set[str]]

    def __getitem__(self, part: Part[Any]) -> Any:
        self.requested.add(part.name)
        return super().__getitem__(part)


@every_part
async def test_building_a_part_requests_exactly_the_parts_it_declares(
    part: Part[Any], shop: Shop
) -> None:
    settings = settings_with(part, shop)
    assembly = RecordingAssembly(settings, open_catalog(settings), actor=lambda name: Idle())
    RecordingAssembly.requested = set()
    for called in part.calls:
        assembly[called]
    assembly.requested.clear()
    part.build(assembly)
    assert assembly.requested == {called.name for called in part.calls}
    await assembly.close()


def test_names_of_parts_deployments_and_stores_are_unique() -> None:
    names = [INGRESS, *(part.name for part in PARTS)]
    deployments = ["Ingress", *(part.deployment for part in PARTS if part.deployment)]
    stores = [store.name for part in PARTS for store in part.stores]
    for group in (names, deployments, stores):
        assert len(set(group)) == len(group)
    assert list(store_settings(PARTS)) == stores


def test_the_serve_configuration_lists_every_deployment() -> None:
    (application,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    named = {deployment["name"] for deployment in application["deployments"]}
    assert named == {"Ingress", *(part.deployment for part in PARTS if part.deployment)}


def test_importing_the_table_does_not_import_the_engines() -> None:
    """Commands and settings import the table, so it must not import the engines."""
    code = """
import sys
import kirana.edge, kirana.serving.settings, kirana.serving.placement
print(sorted({name.partition(".")[0] for name in sys.modules} & {"onnxruntime", "redis", "ray"}))
"""
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (completed.stdout, completed.stderr) == ("[]\n", "")


def test_actors_are_available_only_in_ray_serve(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="Ray Serve"):
        Assembly(shop.settings, shop.source).actor("tally")
