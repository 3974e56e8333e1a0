"""The table of the parts: what has to hold of each, and of a new one."""

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
from kirana.serving.parts import INGRESS, PARTS, stores_of
from kirana.serving.settings import Settings
from tests.e2e.serving import SERVE_CONFIG
from tests.support import Shop

EACH = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)


@EACH
def test_each_method_of_a_protocol_ends_in_the_context_of_its_request(part: Part[Any]) -> None:
    assert part.methods
    for name in part.methods:
        method = inspect.signature(getattr(part.protocol, name), eval_str=True)
        *_, last = method.parameters.values()
        assert (last.name, last.annotation) == ("context", RequestContext), name


@EACH
def test_a_part_calls_only_those_before_it(part: Part[Any]) -> None:
    before = PARTS[: PARTS.index(part)]
    assert set(part.calls) <= set(before)


@EACH
def test_the_settings_of_a_part_are_settings(part: Part[Any]) -> None:
    if part.settings is not None:
        assert issubclass(Settings, part.settings)
    for store in part.stores:
        assert part.settings is not None
        assert store.name in part.settings.model_fields


@EACH
async def test_what_is_built_implements_the_protocol(part: Part[Any], shop: Shop) -> None:
    assembly = Assembly(shop.settings, open_catalog(shop.settings))
    built = assembly[part]
    for name in (*part.methods, "prepare", "health"):
        assert inspect.iscoroutinefunction(getattr(built, name)), name
    await built.prepare(shop.revision)
    assert (await built.health(shop.revision)).reason is None
    await assembly.close()


class RecordingAssembly(Assembly):
    """Notes which parts a build asks for."""

    asked: ClassVar[set[str]]

    def __getitem__(self, part: Part[Any]) -> Any:
        self.asked.add(part.name)
        return super().__getitem__(part)


@EACH
async def test_a_part_asks_for_what_it_says_that_it_calls(part: Part[Any], shop: Shop) -> None:
    assembly = RecordingAssembly(shop.settings, open_catalog(shop.settings))
    RecordingAssembly.asked = set()
    for called in part.calls:
        assembly[called]
    assembly.asked.clear()
    part.build(assembly)
    assert assembly.asked == {called.name for called in part.calls}
    await assembly.close()


def test_names_are_given_once() -> None:
    names = [INGRESS, *(part.name for part in PARTS)]
    deployments = ["Ingress", *(part.deployment for part in PARTS if part.deployment)]
    stores = [store.name for part in PARTS for store in part.stores]
    for each in (names, deployments, stores):
        assert len(set(each)) == len(each)
    assert list(stores_of(PARTS)) == stores


def test_the_serve_configuration_names_every_deployment() -> None:
    (application,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    named = {each["name"] for each in application["deployments"]}
    assert named == {"Ingress", *(part.deployment for part in PARTS if part.deployment)}


def test_the_table_is_read_without_what_the_parts_are_made_of() -> None:
    """Commands and settings ask it: they don't wait for the engines."""
    code = """
import sys
import kirana.edge, kirana.serving.settings, kirana.serving.placement
print(sorted({name.partition(".")[0] for name in sys.modules} & {"onnxruntime", "redis", "ray"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_outside_serve_no_actor_is_found(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="Ray Serve"):
        Assembly(shop.settings, shop.source).actor("tally")
