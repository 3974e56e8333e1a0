"""The commands that ask a running Kirana, as a person at a terminal types them."""

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


def _said(arguments: Sequence[str], url: str) -> str:
    done = _kirana(*arguments, url=url)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def _json(arguments: Sequence[str], url: str) -> Any:
    return json.loads(_said([*arguments, "--json"], url))


def test_get_shows_a_row_a_key_and_what_became_of_it(url: str) -> None:
    words = ["get", "product", "101", "102", "nobody", "-f", "stats.clicks", "-f", "stats.ctr"]
    head, one, two, nobody, note = _said(words, url).splitlines()
    assert head.split() == ["key", "stats.clicks", "stats.ctr"]
    assert one.split() == ["101", "7", "0.1"]
    assert two.split() == ["102", "9", "null"]
    assert nobody.split() == ["nobody", "0", "(missing)", "0.5", "(missing)"]
    assert "1 of 3 not ok" in note
    found = _json(words, url)
    assert found["values"] == [[7, 0.1], [9, None], [0, 0.5]]
    assert found["status"] == {"stats": ["ok", "ok", "missing"]}


def test_get_takes_compound_keys_and_all_features(url: str) -> None:
    found = _json(["get", "user_category", "70|5"], url)
    assert found["features"] == ["affinity.clicks"]
    assert found["values"] == [[-1.0]]
    done = _kirana("get", "user_category", "7", url=url)
    assert done.returncode == 1
    assert "user_id|category_id" in done.stderr


def test_get_tells_where_a_value_comes_from(url: str) -> None:
    assert "0.1 stored" in _said(["get", "product", "101", "-f", "stats.ctr", "--provenance"], url)
    words = ["get", "product", "102", "-f", "stats.ctr", "--provenance"]
    assert _json(words, url)["provenance"] == {"stats.ctr": ["null"]}


def test_interactions_shows_what_a_user_did(url: str) -> None:
    said = _said(["interactions", "70", "click"], url)
    assert "2023-11-14 22:13:20" in said
    assert "\x1b" not in said
    for words in (["--last", "1"], ["--since", "2023-11-14T22:13"], ["--until", str(NOW)]):
        (record,) = _json(["interactions", "70", "click", *words], url)["interactions"]
        assert (record["product_id"], record["timestamp"]) == ("101", NOW)
    assert _json(["interactions", "70", "click", "--since", "2024-01-01"], url) == {
        "interactions": []
    }


def test_infer_shows_scores_and_what_the_models_saw(url: str) -> None:
    words = ["infer", "ranker", "-c", "user_id=70", "-c", "product_id=101"]
    found = _json([*words, "--outputs", "--matrix"], url)
    assert found["ids"] == ["101"]
    assert set(found["outputs"]) == {"p_click", "p_order"}
    assert len(found["matrix"]["columns"]) == len(found["matrix"]["rows"][0]) == 7
    head = _said([*words, "--matrix", "-k", "1"], url).splitlines()[0]
    assert head.split()[:2] == ["id", "score"]
    assert "product.stats.ctr" in head


def test_a_flow_runs_and_shows_its_trace(url: str) -> None:
    said = _said(["flow", "run", "for_you", "-c", "user_id=7", "--trace"], url)
    assert re.search(r"^recent\s+interactions\s+ok", said, re.MULTILINE)
    assert _json(["flow", "run", "for_you", "-c", "user_id=7"], url)["revision"] >= 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["get", "produkt", "1"], 1, "did you mean 'product'?"),
        (["get", "product", "1", "-f", "stats.x"], 1, "unknown feature"),
        (["interactions", "7", "klick"], 1, "did you mean 'click'?"),
        (["interactions", "7", "click", "--since", "soon"], 1, "'soon' is not a time"),
        (["flow", "run", "for_yuo"], 1, "did you mean 'for_you'?"),
        (["flow", "run", "for_you", "-c", "user_id"], 1, "'user_id' is not of the form NAME=ID"),
        (["infer", "ranker", "-c", "user_id=7"], 1, "needs 'product_id'"),
        (["flow", "run", "for_you", "--url", "http://127.0.0.1:1"], 3, "can't be reached"),
        (["flow", "run", "for_you", "--url", "localhost"], 1, "is not like http://"),
        (["flow", "run"], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_on_stderr(
    url: str, words: list[str], code: int, message: str
) -> None:
    done = _kirana(*words, url=url)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_the_shell_completes_names_that_are_live(url: str) -> None:
    environment = {
        **os.environ,
        "KIRANA_URL": url,
        "_KIRANA_COMPLETE": "complete_bash",
        "COMP_WORDS": "kirana flow run f",
        "COMP_CWORD": "3",
    }
    kirana = str(Path(sys.executable).with_name("kirana"))
    done = subprocess.run([kirana], capture_output=True, text=True, check=False, env=environment)
    assert "for_you" in done.stdout, done.stderr


def test_the_example_of_the_page_on_clients_runs(url: str) -> None:
    page = (DOCS / "client.md").read_text()
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    program = block[1].replace("http://127.0.0.1:8000", url.rstrip("/"))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "unknown_flow" in done.stdout
