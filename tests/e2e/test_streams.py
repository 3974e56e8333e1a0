"""A running Kirana with a feature stream on a real Kafka, which is killed, as its consumer is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from kirana.kafka.clients import consumer, producer
from kirana.kafka.consumption import REASON
from kirana.kafka.marks import Mark, decode_mark
from kirana.kafka.url import KafkaUrl
from kirana.streams.topics import dead_letters, stored_marks
from tests.e2e.environment import environment
from tests.e2e.starts import kirana_up
from tests.kafka_server import KafkaServer
from tests.support import write_shop
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

READ = {"entity": "product", "features": ["stats.clicks"]}
PARTITIONS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("streams")) as started:
        yield started


@pytest.fixture(scope="module")
def url(server: KafkaServer) -> str:
    return f"kafka://{server.address}/rows?partitions={PARTITIONS}&timeout=3"


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("stream_shop") / "shop")


@pytest.fixture(scope="module")
def client(shop_folder: Path, url: str) -> Iterator[httpx.Client]:
    settings = {
        "KIRANA_STREAMS_CONSUMERS": "2",
        "KIRANA_STREAMS_WAIT_S": "1",
        "KIRANA_ARCHIVE_PERIOD_S": "1",
    }
    options = ("--streams", url, "--archive", f"file://{shop_folder.parent}/archive")
    with environment(settings), kirana_up(shop_folder, *options) as served:
        wait_for(lambda: lag(served.client) == 0, "the consumers read the topic")
        yield served.client


def lag(client: httpx.Client) -> int | None:
    return streams(client).get("lag")


def streams(client: httpx.Client) -> dict[str, Any]:
    report: dict[str, Any] = client.get("/healthz").json()["parts"]["streams"]
    return report


def row(key: str, clicks: int, **fields: Any) -> dict[str, Any]:
    columns = {"clicks": [clicks], "ctr": [0.5]}
    return {"group": "product.stats", "keys": {"product_id": [key]}, "columns": columns, **fields}


def clicks(client: httpx.Client, key: str) -> int:
    body = {**READ, "keys": {"product_id": [key]}}
    value: int = (
        client.post("/v1/features/get", json=body).raise_for_status().json()["values"][0][0]
    )
    return value


def send(url: str, value: Any, **headers: bytes) -> None:
    """Send a message as any producer would."""

    async def to_topic() -> None:
        parsed = KafkaUrl.parse(url)
        sender = producer(parsed, max_message_bytes=1_000_000)
        await sender.start()
        try:
            names = [(name.replace("_", "-"), text) for name, text in headers.items()]
            body = json.dumps(value).encode()
            await sender.send_and_wait(parsed.topic, body, headers=names)
        finally:
            await sender.stop()

    asyncio.run(to_topic())


def messages(url: str, topic: str) -> list[Any]:
    """Return all messages of a topic."""

    async def of_topic() -> list[Any]:
        reader = consumer(KafkaUrl.parse(url), None)
        reader.subscribe([topic])
        await reader.start()
        try:
            found: list[Any] = []
            ends = await reader.end_offsets(reader.assignment())
            while any([await reader.position(key) < end for key, end in ends.items()]):
                for batch in (await reader.getmany(timeout_ms=100)).values():
                    found += batch
            return found
        finally:
            await reader.stop()

    return asyncio.run(of_topic())


def kirana(*words: str) -> str:
    """Run a command, and return its output."""
    command = [sys.executable, "-m", "kirana", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_message_of_any_producer_becomes_readable(client: httpx.Client, url: str) -> None:
    send(url, row("any", 3))
    wait_for(lambda: clicks(client, "any") == 3, "the row is readable")
    delete = {"group": "product.stats", "keys": {"product_id": ["any"]}}
    send(url, delete, kirana_write=b"delete")
    wait_for(lambda: clicks(client, "any") == 0, "the row is deleted")


def test_a_write_over_http_is_in_the_store_and_in_the_topic(client: httpx.Client, url: str) -> None:
    before = len(messages(url, "rows"))
    reply = client.post("/v1/features/put", json=row("http", 4))
    assert (reply.status_code, reply.json()) == (200, {"written": 1, "stale": 0, "expired": 0})
    assert clicks(client, "http") == 4
    earlier = time.time_ns() // 1_000_000 - 60_000
    stale = client.post("/v1/features/put", json=row("http", 5, event_time=earlier))
    assert stale.json() == {"written": 0, "stale": 1, "expired": 0}
    deleted = client.post(
        "/v1/features/delete", json={"group": "product.stats", "keys": {"product_id": ["http"]}}
    )
    assert deleted.json() == {"deleted": 1, "stale": 0}
    assert len(messages(url, "rows")) == before + 3


def test_a_wrong_message_becomes_a_dead_letter(client: httpx.Client, url: str) -> None:
    send(url, {"group": "product.nothing", "keys": {"product_id": ["a"]}, "columns": {}})

    def reasons() -> list[bytes]:
        letters = messages(url, dead_letters(KafkaUrl.parse(url)))
        return [dict(letter.headers)[REASON] for letter in letters]

    wait_for(lambda: any(b"product.nothing" in reason for reason in reasons()), "it is refused")
    wait_for(lambda: sum(c["refused"] for c in streams(client)["consumers"]) == 1, "health says so")


def test_dead_letters_are_listed_and_sent_again(
    client: httpx.Client, url: str, shop_folder: Path
) -> None:
    before = len(messages(url, "rows"))
    listed = kirana("stream", "dead", str(shop_folder))
    assert "product.nothing" in listed
    assert "1 dead letters" in listed
    assert "1 messages were sent again" in kirana("stream", "resend", str(shop_folder))
    assert len(messages(url, "rows")) == before + 1
    # The group is still unknown, so the message becomes a dead letter again.
    wait_for(lambda: "1 dead letters" in kirana("stream", "dead", str(shop_folder)), "it is back")


def test_files_are_pushed_into_the_stream(
    client: httpx.Client, url: str, shop_folder: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "product.stats.csv"
    rows.write_text("product_id,clicks,ctr\n" + "".join(f"pushed{i},{i},0\n" for i in range(500)))
    assert "500 rows sent" in kirana("push", str(shop_folder), str(rows))
    wait_for(lambda: clicks(client, "pushed499") == 499, "the last row is readable")
    wait_for(lambda: lag(client) == 0, "all messages are done")
    assert clicks(client, "pushed250") == 250
    directly = kirana("push", str(shop_folder), str(rows), "--to", "store")
    assert "500 rows written" in directly


def test_marks_say_up_to_where_the_store_has_the_rows(client: httpx.Client, url: str) -> None:
    wait_for(lambda: lag(client) == 0, "all messages are done")
    ends: dict[int, int] = {}
    for message in messages(url, "rows"):
        ends[message.partition] = message.offset + 1
    marks: dict[int, list[Mark]] = {}
    for message in messages(url, stored_marks(KafkaUrl.parse(url))):
        mark = decode_mark(message.value)
        assert mark is not None
        marks.setdefault(message.partition, []).append(mark)
    for partition, end in ends.items():
        assert max(mark.upto for mark in marks[partition]) == end
        of_time = [mark.at_ms for mark in marks[partition]]
        assert of_time == sorted(of_time)


def test_the_archive_has_every_row(client: httpx.Client, url: str, shop_folder: Path) -> None:
    def is_archived() -> bool:
        return bool(streams(client).get("archive", {}).get("lag") == 0)

    wait_for(is_archived, "all messages are in the archive")
    table = ds.dataset(shop_folder.parent / "archive/product.stats").to_table()
    assert {"any", "http", "pushed499"} <= set(table["product_id"].to_pylist())
    sent = sum(message.offset is not None for message in messages(url, "rows"))
    places = {*zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True)}
    # The messages of an unknown group are dead letters.
    assert len(places) == sent - 2


def test_history_gives_what_reads_returned(
    client: httpx.Client, shop_folder: Path, tmp_path: Path
) -> None:
    points, result = tmp_path / "points.csv", tmp_path / "result.parquet"
    at = datetime.now(UTC).isoformat()
    points.write_text(f"product_id,time,bought\npushed250,{at},yes\npushed250,2026-01-01,no\n")
    words = ("-f", "product.stats", "--out", str(result), "--status")
    assert "2 rows" in kirana("history", str(shop_folder), str(points), *words)
    rows = pq.read_table(result).to_pylist()
    assert [row["product.stats.clicks"] for row in rows] == [clicks(client, "pushed250"), 0]
    assert [row["product.stats._status"] for row in rows] == ["ok", "missing"]
    assert [row["bought"] for row in rows] == ["yes", "no"]


def actors() -> list[psutil.Process]:
    """Return the processes of the actors, by the name that Ray gives them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if words.startswith("ray::ActorHost"):
            found.append(process)
    return found


def test_the_actors_go_on_after_they_were_killed(client: httpx.Client, url: str) -> None:
    killed = actors()
    assert len(killed) == 3
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    send(url, row("killed", 6))
    wait_for(lambda: clicks(client, "killed") == 6, "the row is readable", timeout_s=60)
    wait_for(lambda: streams(client)["state"] == "ok", "health says so", timeout_s=60)


def test_reads_are_served_while_kafka_is_away(
    client: httpx.Client, server: KafkaServer, url: str
) -> None:
    client.post("/v1/features/put", json=row("away", 7)).raise_for_status()
    server.kill()
    assert clicks(client, "away") == 7
    refused = client.post("/v1/features/put", json=row("away", 8), timeout=30)
    assert refused.status_code == 503
    assert "safe to send them again" in refused.json()["error"]["message"]
    wait_for(lambda: streams(client)["state"] == "unavailable", "health says so")
    assert "does not answer" in streams(client)["reason"]
    server.start()
    wait_for(lambda: streams(client)["state"] == "ok", "health says so", timeout_s=60)
    again = client.post("/v1/features/put", json=row("away", 9))
    assert again.json() == {"written": 1, "stale": 0, "expired": 0}
    assert clicks(client, "away") == 9
