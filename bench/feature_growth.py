"""How the cost of a read from Redis grows: rows, features, groups, readers; and where it goes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.figures import Breakdown
from bench.floors.raw_redis import RawMget
from bench.paired import Side, seconds_a_call, seconds_together
from kirana.catalog.directory import DirectoryCatalog
from kirana.codecs import Column
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService, _assemble, _decode
from kirana.features.source import FeatureWrite
from kirana.redis.commands import mget_command
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.serving.checks import checks_of
from kirana.stores import RowKeys, open_feature_store
from kirana.stores.row_keys import key_prefix, row_keys

ROWS = (1, 5, 20, 100, 500, 1_000, 2_000, 5_000)
FEATURES = (1, 5, 20, 60, 100, 200, 500)
GROUPS = (1, 2, 3, 5, 10, 20)
READERS = (1, 4, 16, 64)
WRITTEN_AT_ONCE = 1_000

PLOT = Path(__file__).with_name("feature_growth.svg")


def catalog_text() -> str:
    """Groups of 20 features `n0` to `n19`, and one of 500, `wide`."""
    text = "kind: entity\nname: item\nkeys: [{name: item_id}]\n"
    for name, count in (*((f"n{at}", 20) for at in range(GROUPS[-1])), ("wide", FEATURES[-1])):
        features = "\n".join(f"  - {{name: f{at}, dtype: float32}}" for at in range(count))
        text += f"---\nkind: feature_group\nname: item.{name}\nttl: 7d\nfeatures:\n{features}\n"
    return text


async def measure_growth(address: str) -> list[Breakdown]:
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        folder = Path(temporary)
        (folder / "catalog.yaml").write_text(catalog_text())
        source = DirectoryCatalog(folder, checks_of())
        revision = source.publish().revision
        context = RequestContext.begin(revision)
        service = FeatureService(open_feature_store(f"redis://{address}"), source)
        keys = [str(at) for at in range(ROWS[-1])]
        for name in (*(f"n{at}" for at in range(GROUPS[-1])), "wide"):
            await _write(service, source, revision, f"item.{name}", keys)

        async def us(rows: int, names: Sequence[str], readers: int = 1) -> float:
            query = [FeatureQuery("item", keys[:rows], matrix=tuple(names))]

            async def call() -> None:
                reads = [service.read(query, context) for _ in range(readers)]
                await asyncio.gather(*reads)

            return await seconds_a_call(call) * 1e6

        sixty = [f"wide.f{at}" for at in range(60)]
        found = {
            "rows (60 features, one group)": {n: await us(n, sixty) for n in ROWS},
            "features of one group of 500 (500 rows)": {
                n: await us(500, [f"wide.f{at}" for at in range(n)]) for n in FEATURES
            },
            "groups of 20 features (500 rows)": {
                n: await us(500, [f"n{g}.f{at}" for g in range(n) for at in range(20)])
                for n in GROUPS
            },
            "readers at once (500 rows x 60), us each": {
                n: await us(500, sixty, n) / n for n in READERS
            },
        }
        await service.close()
    plot(found)
    return [
        Breakdown(f"how a read from Redis grows: {title}", "us", {str(n): v for n, v in by.items()})
        for title, by in found.items()
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
    for at in range(0, len(keys), WRITTEN_AT_ONCE):
        some = keys[at : at + WRITTEN_AT_ONCE]
        columns = {
            each.name: Column(rng.random(len(some), dtype=np.float32)) for each in version.features
        }
        times = np.full(len(some), now, dtype=np.uint64)
        await service.write(
            FeatureWrite(group, some, columns, times), RequestContext.begin(revision)
        )


async def breakdown_of_a_read(
    service: FeatureService, query: FeatureQuery, revision: Revision, address: str
) -> Breakdown:
    """Each step of a read of 500 rows x 60, measured by itself; the rest is what is between."""
    store = open_feature_store(f"redis://{address}")
    group = f"{query.entity}.{query.matrix[0].partition('.')[0]}"
    context = RequestContext.begin(revision)
    schemas = await service._schemas.at(revision)
    plan = schemas.plan(query)
    rows = RowKeys(group, query.keys)
    fetched = await service._fetcher.fetch([plan.groups[0].group], query.keys)
    raw = RawMget(address, row_keys(rows))

    decoded = _decode(plan, fetched, context.now_ms)

    def alone(step: Callable[[], object]) -> Side:
        async def side() -> None:
            step()

        return side

    seconds = await seconds_together(
        lambda: service.read([query], context),
        lambda: store.read([rows]),
        raw.read,
        alone(lambda: mget_command([(key_prefix(group), query.keys)])),
        alone(lambda: _decode(plan, fetched, context.now_ms)),
        alone(lambda: _assemble(query, plan, decoded, fetched, context.now_ms)),
    )
    whole, get, mget, command, decode, matrix = (1e6 * each for each in seconds)
    await store.close()
    await raw.close()
    parts = {
        "key texts to the command": command,
        "Redis, the socket, its answer": get - command,
        "decode: headers, expiry, schema version": decode,
        "the matrix, status": matrix,
        "the rest: plans, asyncio": whole - get - decode - matrix,
        "(the raw MGET beside it, by redis.asyncio)": mget,
    }
    return Breakdown("where the time of one read of 500 x 60 from Redis goes", "us", parts)


def plot(found: dict[str, dict[int, float]]) -> None:
    """Write the curves as an SVG beside this file."""
    import matplotlib as mpl

    mpl.use("svg")
    # the same figures make the same file
    mpl.rcParams["svg.hashsalt"] = "kirana"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6))
    for (title, by), axis in zip(found.items(), axes.flat, strict=True):
        axis.plot(list(by), list(by.values()), marker="o")
        axis.set(title=title, xscale="log", yscale="log", ylabel="us")
        axis.title.set_fontsize(9)
        axis.grid(visible=True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)
