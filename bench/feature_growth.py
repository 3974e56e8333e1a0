"""How the cost of a read from Redis grows, and how much time each step of a read takes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.figures import Breakdown
from bench.floors.raw_redis import RawMget
from bench.paired import Side, seconds_of_each, seconds_per_call
from kirana.catalog.directory import DirectoryCatalog
from kirana.codecs import Column
from kirana.features import FeatureQuery
from kirana.features.assembly import assemble, decode
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.redis.commands import mget_command
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.serving.checks import catalog_checks
from kirana.stores import RowKeys, open_feature_store
from kirana.stores.row_keys import key_prefix, row_keys

ROWS = (1, 5, 20, 100, 500, 1_000, 2_000, 5_000)
FEATURES = (1, 5, 20, 60, 100, 200, 500)
GROUPS = (1, 2, 3, 5, 10, 20)
READERS = (1, 4, 16, 64)
WRITTEN_AT_ONCE = 1_000

PLOT = Path(__file__).with_name("feature_growth.svg")


def catalog_text() -> str:
    """Return a catalog with the groups `n0` to `n19` of 20 features and `wide` of 500."""
    text = "kind: entity\nname: item\nkeys: [{name: item_id}]\n"
    for name, count in (*((f"n{n}", 20) for n in range(GROUPS[-1])), ("wide", FEATURES[-1])):
        features = "\n".join(f"  - {{name: f{n}, dtype: float32}}" for n in range(count))
        text += f"---\nkind: feature_group\nname: item.{name}\nttl: 7d\nfeatures:\n{features}\n"
    return text


async def measure_growth(address: str) -> list[Breakdown]:
    """Measure reads by rows, features, groups and readers, and write the curves to `PLOT`."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        folder = Path(temporary)
        (folder / "catalog.yaml").write_text(catalog_text())
        source = DirectoryCatalog(folder, catalog_checks())
        revision = source.publish().revision
        context = RequestContext.begin(revision)
        service = FeatureService(open_feature_store(f"redis://{address}"), source)
        keys = [str(n) for n in range(ROWS[-1])]
        for name in (*(f"n{n}" for n in range(GROUPS[-1])), "wide"):
            await _write(service, source, revision, f"item.{name}", keys)

        async def us_per_call(rows: int, names: Sequence[str], readers: int = 1) -> float:
            query = [FeatureQuery("item", keys[:rows], matrix=tuple(names))]

            async def call() -> None:
                reads = [service.read(query, context) for _ in range(readers)]
                await asyncio.gather(*reads)

            return await seconds_per_call(call) * 1e6

        sixty = [f"wide.f{i}" for i in range(60)]
        curves = {
            "rows (60 features, one group)": {n: await us_per_call(n, sixty) for n in ROWS},
            "features of one group of 500 (500 rows)": {
                n: await us_per_call(500, [f"wide.f{i}" for i in range(n)]) for n in FEATURES
            },
            "groups of 20 features (500 rows)": {
                n: await us_per_call(500, [f"n{g}.f{i}" for g in range(n) for i in range(20)])
                for n in GROUPS
            },
            "readers at once (500 rows x 60), us each": {
                n: await us_per_call(500, sixty, n) / n for n in READERS
            },
        }
        await service.close()
    plot(curves)
    return [
        Breakdown(
            f"how a read from Redis grows: {title}",
            "us",
            {str(n): v for n, v in us_by_count.items()},
        )
        for title, us_by_count in curves.items()
    ]


async def _write(
    service: FeatureService,
    source: DirectoryCatalog,
    revision: Revision,
    group: str,
    keys: list[str],
) -> None:
    version = source.load(revision).groups[group].current
    now = int(time.time() * 1000)
    rng = np.random.default_rng(0)
    for start in range(0, len(keys), WRITTEN_AT_ONCE):
        batch = keys[start : start + WRITTEN_AT_ONCE]
        columns = {
            feature.name: Column(rng.random(len(batch), dtype=np.float32))
            for feature in version.features
        }
        times = np.full(len(batch), now, dtype=np.uint64)
        await service.write(
            FeatureWrite(group, batch, columns, times), RequestContext.begin(revision)
        )


async def breakdown_of_a_read(
    service: FeatureService, query: FeatureQuery, revision: Revision, address: str
) -> Breakdown:
    """Return the microseconds per step of the read of `query`, and the rest of the total.

    Each step is measured alone.
    """
    store = open_feature_store(f"redis://{address}")
    group = f"{query.entity}.{query.matrix[0].partition('.')[0]}"
    context = RequestContext.begin(revision)
    schemas = await service._schemas.at(revision)
    plan = schemas.plan(query)
    rows = RowKeys(group, query.keys)
    fetched = await service._fetcher.fetch([plan.groups[0].group], query.keys)
    raw = RawMget(address, row_keys(rows))
    decoded = decode(plan, fetched, context.now_ms)

    def alone(step: Callable[[], object]) -> Side:
        async def side() -> None:
            step()

        return side

    seconds = await seconds_of_each(
        lambda: service.read([query], context),
        lambda: store.read([rows]),
        raw.read,
        alone(lambda: mget_command([(key_prefix(group), query.keys)])),
        alone(lambda: decode(plan, fetched, context.now_ms)),
        alone(lambda: assemble(query, plan, decoded, fetched, context.now_ms)),
    )
    total, store_read, mget, command, decoding, matrix = (
        1e6 * duration_s for duration_s in seconds
    )
    await store.close()
    await raw.close()
    parts = {
        "key texts to the command": command,
        "Redis, the socket, its answer": store_read - command,
        "decode: headers, expiry, schema version": decoding,
        "the matrix, status": matrix,
        "the rest: plans, asyncio": total - store_read - decoding - matrix,
        "(the raw MGET beside it, by redis.asyncio)": mget,
    }
    return Breakdown("where the time of one read of 500 x 60 from Redis goes", "us", parts)


def plot(curves: dict[str, dict[int, float]]) -> None:
    """Write the curves as an SVG beside this file."""
    import matplotlib as mpl

    mpl.use("svg")
    # Ids in an SVG are random by default. With a fixed salt, the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "kirana"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6))
    for (title, us_by_count), axis in zip(curves.items(), axes.flat, strict=True):
        axis.plot(list(us_by_count), list(us_by_count.values()), marker="o")
        axis.set(title=title, xscale="log", yscale="log", ylabel="us")
        axis.title.set_fontsize(9)
        axis.grid(visible=True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)
