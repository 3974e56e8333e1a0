"""The demo from end to end, with fewer points, and the commands of the README's tour."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import yaml

from kirana import graphs
from kirana.demo.dataset import load_movielens, split_by_time
from kirana.demo.download import download_movielens
from kirana.demo.protocol import ndcg_and_recall, popularity_lists, sample_points
from kirana.demo.rankers import train_rankers
from kirana.demo.run import PAST_SHARE, POINT_SEED
from kirana.demo.simulation import COLUMNS, GENERATORS, answer_request, build_tables
from kirana.serving.environment import free_ports
from tests.waiting import wait_for

POINTS = 150
TRAIN_POINTS = 600
CACHE = Path(".cache")
README = Path(__file__).parents[2] / "README.md"
TIMEOUT_S = 300
KEYS = {
    "ndcg_at_10",
    "ndcg_at_10_popularity",
    "ndcg_ratio",
    "ndcg_ratio_low",
    "recall_at_20",
    "recall_at_20_popularity",
    "points",
    "events_replayed",
    "p50_ms",
    "p99_ms",
    "rows_per_s",
    "seconds",
}


@dataclass
class Demo:
    """A demo that has finished its work and stays up."""

    process: subprocess.Popen[bytes]
    workdir: Path
    port: int
    output: str
    report: dict[str, float]


def _command(workdir: Path, port: int, report: Path) -> list[str]:
    options = {
        "--workdir": workdir,
        "--cache": CACHE,
        "--port": port,
        "--points": POINTS,
        "--train-points": TRAIN_POINTS,
        "--report": report,
    }
    arguments = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-m", "kirana", "demo", "--keep", *arguments]


def _wait_for_words(words: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def logged() -> bool:
        assert process.poll() is None, log.read_text()
        return words in log.read_text()

    wait_for(logged, log.read_text, timeout_s=TIMEOUT_S)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    workdir, report, log = folder / "work", folder / "report.json", folder / "output"
    port = free_ports(1)[0]
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(workdir, port, report),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for_words("stays up at", process, log)
        yield Demo(process, workdir, port, log.read_text(), json.loads(report.read_text()))
    finally:
        process.terminate()
        process.wait(90)


def test_the_report_has_its_keys(demo: Demo) -> None:
    assert demo.report.keys() >= KEYS
    assert demo.report["points"] == POINTS
    assert demo.report["events_replayed"] == 20_000


def test_kirana_has_at_least_twice_the_ndcg_of_popularity(demo: Demo) -> None:
    assert demo.report["ndcg_ratio"] >= 2.0
    assert demo.report["recall_at_20"] > demo.report["recall_at_20_popularity"]


def test_the_three_printed_curl_commands_work(demo: Demo) -> None:
    lines = [line for line in demo.output.splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    for line in lines:
        completed = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
        assert json.loads(completed.stdout).keys() & {"output", "values", "scores"}
    assert "Traceback" not in demo.output


def test_a_second_demo_says_that_the_first_is_up_and_how_to_stop_it(
    demo: Demo, tmp_path: Path
) -> None:
    command = _command(demo.workdir, free_ports(1)[0], tmp_path / "report.json")
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert f"up at http://127.0.0.1:{demo.port}" in completed.stderr
    assert "kirana down" in completed.stderr
    assert httpx.get(f"http://127.0.0.1:{demo.port}/healthz").status_code == 200


def test_kirana_ranks_as_the_simulation_for_training_does(demo: Demo) -> None:
    """Kirana over HTTP reaches the same quality as the simulation of its requests in numpy."""
    data = load_movielens(download_movielens(CACHE))
    past, _ = split_by_time(data.events, PAST_SHARE)
    points = sample_points(data.events, data.item_ids, len(past), POINTS, POINT_SEED)
    rankers = train_rankers(data, past, TRAIN_POINTS)
    tables = build_tables(data, past)
    ranked_lists = []
    for i in range(len(points)):
        items, features = answer_request(
            tables, int(points.users[i]), points.histories[i], points.history_times[i]
        )
        watch = rankers.watch.predict_proba(features)[:, 1]
        score = watch * (1 + 0.15 * rankers.like.predict_proba(features)[:, 1])
        ranked_lists.append(items[np.argsort(-score, kind="stable")[:20]])
    ndcg, recall = ndcg_and_recall(ranked_lists, points)
    baseline, _ = ndcg_and_recall(popularity_lists(data.events, points, data.item_count), points)
    report = demo.report
    assert report["ndcg_at_10"] == pytest.approx(ndcg.mean(), abs=2e-3)
    assert report["recall_at_20"] == pytest.approx(recall.mean(), abs=2e-3)
    assert report["ndcg_at_10_popularity"] == pytest.approx(baseline.mean())


def test_the_simulation_has_the_columns_and_generators_of_the_catalog() -> None:
    folder = Path(graphs.__path__[0]) / "demo"
    objects = [
        item
        for file in sorted(folder.glob("*.yaml"))
        for item in yaml.safe_load_all(file.read_text())
    ]
    ranker = next(item for item in objects if item["kind"] == "inferflow")
    assert tuple(ranker["features"]) == COLUMNS
    flow = next(item for item in objects if item["kind"] == "flow")
    generators = {item["name"]: item for item in objects if item["kind"] == "candidate_generator"}
    inputs = {consumer: name for name, consumers in flow["graph"].items() for consumer in consumers}
    for generator in GENERATORS:
        node = flow["nodes"][generator.table]["with"]
        assert node["limit"] == generator.limit
        assert generators[node["cg_name"]]["with"]["decay"] == generator.decay
        assert generators[node["cg_name"]]["with"]["ids"] == f"product.{generator.table}.ids"
        assert flow["nodes"][inputs[generator.table]]["with"]["last"] == generator.seeds


def _tour() -> list[str]:
    """Return the commands of the README's tour after the one that starts the demo."""
    tour = README.read_text().split("## A five-minute tour")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", tour, re.DOTALL)
    assert blocks[0] == "make demo KEEP=1\n"
    return [line for block in blocks[1:] for line in block.splitlines()]


def test_every_command_of_the_tour_works(demo: Demo) -> None:
    """Run last on this demo, because the tour stops it.

    The commands are those of the README, with another port, folder and path of `kirana`.
    """
    outputs = []
    for line in _tour():
        command = line.replace("localhost:8000", f"localhost:{demo.port}")
        command = command.replace(".demo/", f"{demo.workdir}/")
        command = command.replace(".venv/bin/kirana", f"{sys.executable} -m kirana")
        completed = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KIRANA_URL": f"http://localhost:{demo.port}"},
        )
        assert completed.returncode == 0, (line, completed.stderr)
        outputs.append(completed.stdout)
        if line.startswith("curl"):
            assert "error" not in json.loads(completed.stdout), line
        if "kirana check" in line:
            assert "did you mean 'popular'?" in completed.stderr
    lists = [json.loads(text)["output"]["ids"] for text in outputs if '"output"' in text]
    traced, stranger, after_clicks, top_five = lists
    assert len(traced) == len(stranger) == len(after_clicks) == 20
    assert stranger != after_clicks
    assert top_five == traced[:5]
    assert outputs[-1] == "stopped\n"
    assert demo.process.wait(60) == 0


def test_ctrl_c_during_the_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(tmp_path / "work", free_ports(1)[0], tmp_path / "report.json"),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _wait_for_words("kirana up", process, log)
    processes = psutil.Process(process.pid).children(recursive=True)
    assert len(processes) > 5
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(90) == 130
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert [child.cmdline() for child in alive if child.is_running()] == []
    assert "Traceback" not in log.read_text()
