"""The feature stream: files into Kafka, Kafka into the stores, and history from the archive."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.feature_data import NAMES, catalog_text
from bench.figures import Breakdown, Figure, Report
from bench.floors.raw_kafka import consume_all, send_all
from bench.ingest_freshness import measure_freshness
from bench.ingest_history import measure_history
from bench.servers import redis_server
from kirana.cassandra.url import CassandraUrl
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.revisions import LiveRevision
from kirana.catalog.snapshot import Catalog
from kirana.codecs import CODECS, Column
from kirana.doors.stream import StreamDoor
from kirana.edge.messages import FeaturesPut
from kirana.edge.protobuf import decode
from kirana.edge.resources import Resources
from kirana.features.part import FEATURES
from kirana.features.service import FeatureService
from kirana.features.values import columns_of
from kirana.ingest.push import Push
from kirana.ingest.targets import StreamTarget
from kirana.kafka.consumption import Consumption
from kirana.kafka.sending import Outgoing, Sender
from kirana.kafka.topics import Layout, layout_of
from kirana.kafka.url import KafkaUrl
from kirana.key_texts import key_texts
from kirana.part import Parts
from kirana.serving.checks import catalog_checks
from kirana.stores import FeatureStore, RowBlock, open_feature_store
from kirana.stores.cassandra_tables import CassandraTables
from kirana.stores.hot.generations import ENTITY
from kirana.streams.messages import PutRows
from kirana.streams.topics import dead_letters, make_topics, stored_marks
from tests.cassandra_server import CassandraServer
from tests.kafka_server import KafkaServer
from tests.waiting import wait_until

ROWS = 100_000
CASSANDRA_ROWS = 20_000
ROUNDS = 5
PARTITIONS = 8
GROWTH_ROWS = 20_000
MESSAGE_ROWS = (10, 100, 1_000, 10_000)
PARTITION_COUNTS = (1, 2, 4, 8)
NARROW = "---\nkind: feature_group\nname: product.narrow\nfeatures:\n" + "".join(
    f"  - {{name: f{n}, dtype: float32}}\n" for n in range(10)
)
_topics = count()


@dataclass(frozen=True)
class Bench:
    """A catalog, a file with rows, and a Kafka."""

    source: DirectoryCatalog
    catalog: Catalog
    broker: str
    folder: Path

    async def topic(self, partitions: int = PARTITIONS) -> KafkaUrl:
        """Return the URL of a new stream."""
        name = f"rows{next(_topics)}"
        url = KafkaUrl.parse(f"kafka://{self.broker}/{name}?partitions={partitions}&timeout=60")
        await make_topics(url)
        return url

    def rows(self, name: str, number: int) -> PutRows:
        """Return rows of a group to be sent."""
        group = self.catalog.group(name)
        rng = np.random.default_rng(0)
        keys = pa.array([str(n) for n in range(number)], pa.string())
        columns = {
            feature.name: Column(rng.random(number, dtype=np.float32))
            for feature in group.current.features
        }
        times = np.full(number, time.time_ns() // 1_000_000, np.uint64)
        return PutRows(group, group.current, keys, columns, times)


async def measure() -> Report:
    """Measure the stream and the archive. `bench/README.md` describes the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary, redis_server() as redis:
        folder = Path(temporary)
        for name in ("catalog", "kafka", "cassandra"):
            (folder / name).mkdir()
        (folder / "catalog" / "catalog.yaml").write_text(catalog_text(1) + NARROW)
        source = DirectoryCatalog(folder / "catalog", catalog_checks())
        catalog = source.load(source.publish().revision)
        history, history_tables = await measure_history(catalog, folder)
        with KafkaServer(folder / "kafka") as kafka:
            bench = Bench(source, catalog, kafka.address, folder)
            figures = {"push_kafka_vs_producer": await measure_push(bench)}
            store = open_feature_store(f"redis://{redis}")
            consumed = await measure_consumption(bench, store, ROWS)
            figures["consume_redis_vs_raw"] = consumed
            tables = await measure_growth(bench, store)
            await store.close()
            highest = tables[1].parts[f"1000 rows a message, {PARTITIONS} partitions"]
            rows = bench.rows("product.narrow", 1_000)
            url = await bench.topic()
            tables += await measure_freshness(folder / "catalog", url, redis, rows, highest)
            with cassandra_store(folder / "cassandra") as durable:
                consumed = await measure_consumption(bench, durable, CASSANDRA_ROWS)
                figures["consume_cassandra_vs_raw"] = consumed
                await durable.close()
    return Report(figures | history, [*tables, *history_tables])


@contextmanager
def cassandra_store(folder: Path) -> Iterator[FeatureStore]:
    """Start a Cassandra with the tables of the catalog, and yield a store in it."""
    with CassandraServer(folder) as server:
        address = f"cassandra://{server.address}/shop?timeout=60"
        CassandraTables(CassandraUrl.parse(address)).create(["product", ENTITY])
        yield open_feature_store(address)


async def measure_push(bench: Bench) -> Figure:
    """Measure `push` of a file into a topic, beside a bare producer of the same messages."""
    file = bench.folder / "product.stats.parquet"
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {"product_id": [str(n) for n in range(ROWS)]}
    columns |= {name: rng.random(ROWS, dtype=np.float32) for name in NAMES}
    pq.write_table(pa.table(columns), file)
    url = await bench.topic()
    sender = Sender(url)
    target = StreamTarget(sender, timeout_s=url.timeout_s)
    await target.open()
    messages: list[Outgoing] = []

    async def push() -> float:
        job = Push([file], bench.catalog)
        start = time.perf_counter()
        await job.write(target, lambda rows: None)
        return ROWS / (time.perf_counter() - start)

    for feature_file in Push([file], bench.catalog)._files:
        for _, made in target.batches(feature_file, time.time_ns() // 1_000_000, 0):
            messages += made
    rounds = []
    for _ in range(ROUNDS + 1):
        ours = await push()
        start = time.perf_counter()
        await send_all(bench.broker, url.topic, messages)
        rounds.append((ours, ROWS / (time.perf_counter() - start)))
    await sender.close()
    return Figure.of_rates(rounds[1:])


async def measure_consumption(bench: Bench, store: FeatureStore, rows: int) -> Figure:
    """Measure a consumer that writes a topic to a store, beside a bare one with bulk writes."""
    rounds = []
    put = bench.rows("product.stats", rows)
    for _ in range(ROUNDS + 1):
        url = await bench.topic()
        messages = list(put.messages(await layout_of(url)))
        await send_all(bench.broker, url.topic, messages)
        ours = await consume(bench, url, store, len(messages))
        blocks = blocks_of(bench, messages)
        start = time.perf_counter()
        await consume_all(bench.broker, url.topic, PARTITIONS, store, blocks)
        rounds.append((rows / ours, rows / (time.perf_counter() - start)))
    return Figure.of_rates(rounds[1:])


async def consume(bench: Bench, url: KafkaUrl, store: FeatureStore, messages: int) -> float:
    """Return how long one consumer takes to write all messages to a store, in seconds."""
    service = FeatureService(store, bench.source)
    live = LiveRevision(bench.source, [service])
    await live.start()
    resources = Resources(Parts({FEATURES: service}), live, bench.source)
    door = StreamDoor(resources, wait_s=0, timeout_s=60)
    consumption = Consumption(
        url, dead=dead_letters(url), marks=stored_marks(url), handle=door.handle
    )
    start = time.perf_counter()
    task = asyncio.create_task(consumption.run())
    await wait_until(lambda: consumption.report.handled >= messages, "all messages are written")
    seconds = time.perf_counter() - start
    assert consumption.report.refused == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return seconds


def blocks_of(bench: Bench, messages: Sequence[Outgoing]) -> dict[tuple[int, int], RowBlock]:
    """Return the encoded rows of each message, by partition and offset."""
    blocks: dict[tuple[int, int], RowBlock] = {}
    offsets = [0] * PARTITIONS
    for message in messages:
        put = decode(FeaturesPut, message.value)
        group = bench.catalog.group(put.group)
        keys = key_texts(group.entity, put.keys)
        columns = columns_of(group.current, put.columns, len(keys))
        times = np.array(put.event_time, np.uint64)
        codec = CODECS[group.codec]
        values = codec.encode(group, group.current, columns, times)
        block = RowBlock.joined(group.name, codec, keys, values, group.expiry_s(times), times)
        blocks[message.partition, offsets[message.partition]] = block
        offsets[message.partition] += 1
    return blocks


async def measure_growth(bench: Bench, store: FeatureStore) -> list[Breakdown]:
    """Return the rows per second of sending and of consuming, by rows a message and partitions."""
    sent: dict[str, float] = {}
    consumed: dict[str, float] = {}
    shapes = [(rows, PARTITIONS) for rows in MESSAGE_ROWS]
    shapes += [(1_000, partitions) for partitions in PARTITION_COUNTS[:-1]]
    for rows, partitions in shapes:
        label = f"{rows} rows a message, {partitions} partitions"
        total = max(GROWTH_ROWS, rows * partitions) if rows > 10 else GROWTH_ROWS
        url = await bench.topic(partitions)
        put = bench.rows("product.narrow", total)
        everything = Layout(1, 1 << 30)
        messages = [
            replace(message, partition=number % partitions)
            for number, start in enumerate(range(0, total, rows))
            for message in put.taken(np.arange(start, start + rows)).messages(everything)
        ]
        sender = Sender(url)
        await sender.layout()
        start_s = time.perf_counter()
        for first in range(0, len(messages), StreamTarget.IN_FLIGHT):
            some = messages[first : first + StreamTarget.IN_FLIGHT]
            await sender.send(some, timeout_s=url.timeout_s)
        sent[label] = total / (time.perf_counter() - start_s)
        await sender.close()
        consumed[label] = total / await consume(bench, url, store, len(messages))
    return [
        Breakdown("rows of 10 float32 sent to Kafka", "rows/s", sent),
        Breakdown("rows of 10 float32 from Kafka into Redis, one consumer", "rows/s", consumed),
    ]
