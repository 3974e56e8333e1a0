"""The commands that query a running Kirana, called as a user calls them in a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_for

NOW = 1_700_000_000_000
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def url(client: httpx.Client) -> str:
    stats = {"clicks": [7, 9], "ctr": [0.1, None]}
    put = {"group": "product.stats", "keys": {"product_id": ["101", "102"]}, "columns": stats}
    client.post("/v1/features/put", json=put).raise_for_status()
    event = {"user_id": "70", "event": "click", "product_id": "101", "timestamp": NOW}
    event["metadata"] = {"place": "home\x1b[2J"}
    client.post("/v1/interactions", json={"events": [event]}).raise_for_status()
    return str(client.base_url)


def _kirana(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirana", *arguments]
    environment = {**os.environ, "KIRANA_URL": url}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def _stdout(arguments: Sequence[str], url: str) -> str:
    completed = _kirana(*arguments, url=url)
    assert (completed.returncode, completed.stderr) == (0, ""), completed.stderr
    return completed.stdout


def _json(arguments: Sequence[str], url: str) -> Any:
    return json.loads(_stdout([*arguments, "--json"], url))


def test_get_shows_one_row_per_key_with_its_status(url: str) -> None:
    arguments = ["get", "product", "101", "102", "nobody", "-f", "stats.clicks", "-f", "stats.ctr"]
    head, first, second, missing, note = _stdout(arguments, url).splitlines()
    assert head.split() == ["key", "stats.clicks", "stats.ctr"]
    assert first.split() == ["101", "7", "0.1"]
    assert second.split() == ["102", "9", "null"]
    assert missing.split() == ["nobody", "0", "(missing)", "0.5", "(missing)"]
    assert "1 of 3 not ok" in note
    reply = _json(arguments, url)
    assert reply["values"] == [[7, 0.1], [9, None], [0, 0.5]]
    assert reply["status"] == {"stats": ["ok", "ok", "missing"]}


def test_get_takes_compound_keys_and_all_features(url: str) -> None:
    reply = _json(["get", "user_category", "70|5"], url)
    assert reply["features"] == ["affinity.clicks"]
    assert reply["values"] == [[-1.0]]
    completed = _kirana("get", "user_category", "7", url=url)
    assert completed.returncode == 1
    assert "user_id|category_id" in completed.stderr


def test_get_shows_the_provenance_of_a_value(url: str) -> None:
    assert "0.1 stored" in _stdout(
        ["get", "product", "101", "-f", "stats.ctr", "--provenance"], url
    )
    arguments = ["get", "product", "102", "-f", "stats.ctr", "--provenance"]
    assert _json(arguments, url)["provenance"] == {"stats.ctr": ["null"]}


def test_interactions_shows_the_events_of_a_user(url: str) -> None:
    output = _stdout(["interactions", "70", "click"], url)
    assert "2023-11-14 22:13:20" in output
    assert "\x1b" not in output
    for words in (["--last", "1"], ["--since", "2023-11-14T22:13"], ["--until", str(NOW)]):
        (record,) = _json(["interactions", "70", "click", *words], url)["interactions"]
        assert (record["product_id"], record["timestamp"]) == ("101", NOW)
    assert _json(["interactions", "70", "click", "--since", "2024-01-01"], url) == {
        "interactions": []
    }


def test_infer_shows_scores_outputs_and_the_matrix(url: str) -> None:
    arguments = ["infer", "ranker", "-c", "user_id=70", "-c", "product_id=101"]
    reply = _json([*arguments, "--outputs", "--matrix"], url)
    assert reply["ids"] == ["101"]
    assert set(reply["outputs"]) == {"p_click", "p_order"}
    assert len(reply["matrix"]["columns"]) == len(reply["matrix"]["rows"][0]) == 7
    head = _stdout([*arguments, "--matrix", "-k", "1"], url).splitlines()[0]
    assert head.split()[:2] == ["id", "score"]
    assert "product.stats.ctr" in head


def test_a_flow_runs_and_shows_its_trace(url: str) -> None:
    output = _stdout(["flow", "run", "for_you", "-c", "user_id=7", "--trace"], url)
    assert re.search(r"^recent\s+interactions\s+ok", output, re.MULTILINE)
    assert _json(["flow", "run", "for_you", "-c", "user_id=7"], url)["revision"] >= 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["get", "produkt", "1"], 1, "did you mean 'product'?"),
        (["get", "product", "1", "-f", "stats.x"], 1, "unknown feature"),
        (["interactions", "7", "klick"], 1, "did you mean 'click'?"),
        (["interactions", "7", "click", "--since", "soon"], 1, "not 'soon'"),
        (["flow", "run", "for_yuo"], 1, "did you mean 'for_you'?"),
        (["flow", "run", "for_you", "-c", "user_id"], 1, "must be NAME=ID, not 'user_id'"),
        (["infer", "ranker", "-c", "user_id=7"], 1, "'product_id' is missing"),
        (["flow", "run", "for_you", "--url", "http://127.0.0.1:1"], 3, "can't be reached"),
        (["flow", "run", "for_you", "--url", "localhost"], 1, "must be an HTTP URL"),
        (["flow", "run"], 2, "Missing argument"),
    ],
)
def test_errors_are_printed_on_stderr(url: str, words: list[str], code: int, message: str) -> None:
    completed = _kirana(*words, url=url)
    assert completed.returncode == code, completed.stderr
    assert message in completed.stderr
    assert completed.stdout == ""
    assert "Traceback" not in completed.stderr


def test_the_shell_completes_names_of_the_live_catalog(url: str) -> None:
    environment = {
        **os.environ,
        "KIRANA_URL": url,
        "_KIRANA_COMPLETE": "complete_bash",
        "COMP_WORDS": "kirana flow run f",
        "COMP_CWORD": "3",
    }
    kirana = str(Path(sys.executable).with_name("kirana"))

    def offered() -> str:
        completed = subprocess.run(
            [kirana], capture_output=True, text=True, check=False, env=environment
        )
        return completed.stdout

    # A completion that takes too long offers nothing.
    wait_for(lambda: "for_you" in offered(), "the name is offered")


def test_the_example_in_the_client_docs_runs(url: str) -> None:
    page = (DOCS / "client.md").read_text()
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    program = block[1].replace("http://127.0.0.1:8000", url.rstrip("/"))
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert completed.returncode == 0, completed.stderr
    assert "unknown_flow" in completed.stdout
