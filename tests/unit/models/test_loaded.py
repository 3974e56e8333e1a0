"""`LoadedModel`: which runs go to the event loop, and which to a thread."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
from onnx import TensorProto, helper

from kirana.catalog.objects import ModelObject
from kirana.cli.locations import local_settings
from kirana.errors import ModelFailed
from kirana.models import loaded as loaded_module
from kirana.models.copies import ModelCopies
from kirana.models.loaded import LoadedModel, LoadedModels
from kirana.models.onnx import OnnxModel
from kirana.models.pace import LONG_S, SHORT_S, Pace
from kirana.models.runner import MATRIX
from kirana.serving.assembly import catalog_backend
from tests.support import publish, write_linear_model, write_shop
from tests.unit.models.test_onnx import FLOAT, write
from tests.waiting import wait_until


@pytest.fixture
def linear(tmp_path: Path) -> OnnxModel:
    """Return a model that adds the two columns of its input."""
    write_linear_model(tmp_path / "linear.onnx", [1.0, 1.0], "sum")
    return OnnxModel("linear", tmp_path / "linear.onnx")


@pytest.fixture
def stored(tmp_path: Path) -> ModelObject:
    """Return a published model, which has a copy below `tmp_path`."""
    folder = write_shop(tmp_path / "shop")
    revision = publish(folder)
    catalog = catalog_backend(local_settings(folder, {})).load(revision)
    return next(iter(catalog.models.values()))


@pytest.fixture
def models(tmp_path: Path) -> LoadedModels:
    return LoadedModels(ModelCopies(tmp_path / "shop/models"))


def matrix(rows: int) -> dict[str, Any]:
    return {MATRIX: np.ones((rows, 2), dtype=np.float32)}


async def thread_of_run(model: LoadedModel, rows: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a model, and return the identifier of the thread that ran it."""
    idents: list[int] = []
    run = OnnxModel.run

    def recorded(self: OnnxModel, *arguments: Any) -> Any:
        idents.append(threading.get_ident())
        return run(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(OnnxModel, "run", recorded)
        await model.run(matrix(rows), ["sum"])
    (ident,) = idents
    return ident


class Clock:
    """A clock of CPU time that advances by `step_s` each time it is read."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.now_s = 0.0

    def thread_time(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that measures runs. At first, each run takes half of `SHORT_S`."""
    clock = Clock(SHORT_S / 2)
    monkeypatch.setattr(loaded_module, "time", clock)
    return clock


async def test_the_scores_are_the_same_on_the_loop_and_in_a_thread(
    linear: OnnxModel, clock: Clock
) -> None:
    inline = await LoadedModel(linear).run(matrix(3), ["sum"])
    clock.step_s = LONG_S * 2
    in_thread = await LoadedModel(linear).run(matrix(3), ["sum"])
    assert inline["sum"].tolist() == in_thread["sum"].tolist() == [2.0, 2.0, 2.0]


async def test_a_model_with_a_short_warm_up_runs_on_the_loop(
    linear: OnnxModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LoadedModel(linear)
    assert await thread_of_run(model, 500, monkeypatch) == threading.get_ident()


async def test_a_model_with_a_long_warm_up_runs_in_a_thread(
    linear: OnnxModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.step_s = LONG_S * 2
    model = LoadedModel(linear)
    assert await thread_of_run(model, 1, monkeypatch) != threading.get_ident()


async def test_an_input_larger_than_any_in_the_warm_up_first_runs_in_a_thread(
    linear: OnnxModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LoadedModel(linear)
    assert await thread_of_run(model, 100_000, monkeypatch) != threading.get_ident()
    assert await thread_of_run(model, 100_000, monkeypatch) == threading.get_ident()


async def test_a_model_leaves_the_loop_after_one_long_run_and_returns_after_short_ones(
    linear: OnnxModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loop = LoadedModel(linear), threading.get_ident()
    clock.step_s = LONG_S * 2
    assert await thread_of_run(model, 500, monkeypatch) == loop
    assert await thread_of_run(model, 500, monkeypatch) != loop
    clock.step_s = SHORT_S / 10
    threads = [await thread_of_run(model, 500, monkeypatch) for _ in range(20)]
    assert threads[0] != loop
    assert threads[-1] == loop


async def test_short_runs_that_fail_do_not_lead_a_model_back_to_the_loop(
    linear: OnnxModel, clock: Clock
) -> None:
    clock.step_s = LONG_S * 2
    model = LoadedModel(linear)
    clock.step_s = 0.0

    def fail(*arguments: Any) -> None:
        raise ModelFailed("linear", "it fails")

    linear.run = fail  # type: ignore[method-assign]
    for _ in range(50):
        with pytest.raises(ModelFailed):
            await model.run(matrix(1), ["sum"])
    assert not model._pace.is_short(2)


async def test_a_long_run_that_fails_leads_a_model_off_the_loop(
    linear: OnnxModel, clock: Clock
) -> None:
    model = LoadedModel(linear)
    clock.step_s = LONG_S * 2

    def fail(*arguments: Any) -> None:
        raise ModelFailed("linear", "it fails")

    linear.run = fail  # type: ignore[method-assign]
    with pytest.raises(ModelFailed):
        await model.run(matrix(500), ["sum"])
    assert not model._pace.is_short(1_000)


async def test_a_model_with_a_branch_never_runs_on_the_loop(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def branch(name: str) -> Any:
        node = helper.make_node("Identity", ["rows"], [name])
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1])
        return helper.make_graph([node], name, [], [value])

    path = write(
        tmp_path / "branch.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["rows"]),
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["positive"], to=TensorProto.BOOL),
            helper.make_node(
                "If",
                ["positive"],
                ["sum"],
                then_branch=branch("then"),
                else_branch=branch("else"),
            ),
        ],
        [("x", FLOAT, ["n", 2])],
        [("sum", FLOAT, ["n", 1])],
        {"w": np.ones((2, 1), dtype=np.float32)},
    )
    model = LoadedModel(OnnxModel("branch", path))
    for _ in range(3):
        assert await thread_of_run(model, 1, monkeypatch) != threading.get_ident()


class TestLoadedModels:
    def test_a_model_in_use_is_loaded_once(self, models: LoadedModels, stored: ModelObject) -> None:
        first = models.load(stored)
        assert models.load(stored) is first

    async def test_a_model_that_is_not_in_use_is_freed_with_its_threads(
        self, models: LoadedModels, stored: ModelObject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pace, "is_short", lambda pace, cells: False)
        model = models.load(stored)
        await model.run({MATRIX: np.ones((1, 7), dtype=np.float32)}, ["p_click"])
        assert own_threads()
        freed = ref(model)
        del model
        gc.collect()
        assert freed() is None
        await wait_until(lambda: not own_threads(), "its threads end")


def own_threads() -> list[str]:
    """Return the names of the threads of the shop's click model."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("model-click_model")]
