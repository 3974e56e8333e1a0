"""The steps of the demo, from raw events to ranked lists."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from kirana import graphs
from kirana.catalog.directory import DirectoryCatalog
from kirana.cli.catalog import publish
from kirana.cli.console import err, out, own_command, progress
from kirana.cli.instance import Instance
from kirana.cli.interrupts import run_until_interrupted
from kirana.cli.locations import local_settings
from kirana.cli.push import run_push
from kirana.demo.batch import write_features, write_models
from kirana.demo.dataset import Events, MovieLens, load_movielens, split_by_time
from kirana.demo.download import download_movielens
from kirana.demo.protocol import Points, popularity_lists, sample_points
from kirana.demo.rankers import TRAIN_POINTS, train_rankers
from kirana.demo.replay import Replay
from kirana.demo.report import Report, make_report
from kirana.demo.server import server
from kirana.demo.tour import steps, try_step
from kirana.errors import ConfigurationError
from kirana.ingest.push import Push
from kirana.serving.preflight import check_port

CATALOG = Path(graphs.__path__[0]) / "demo"
PAST_SHARE = 0.8
POINT_SEED = 1
"""The seed for the points of the evaluation.

Other seeds give NDCG ratios from 2.3 to 2.6. With all eligible points the ratio is 2.5.
"""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of `kirana demo`.

    `workdir` holds the catalog, features and logs, and `cache` the downloads. `points` is the
    number of lists to request, and `train_points` is the number of past requests to train on.
    `report` is the JSON file for the results. With `keep`, Kirana stays up after the demo.
    """

    workdir: Path
    cache: Path
    port: int
    points: int
    train_points: int = TRAIN_POINTS
    report: Path | None = None
    keep: bool = False


def run_demo(options: DemoOptions) -> None:
    """Run the demo and print its results. With `options.keep`, block until Kirana is stopped.

    Raise `ConfigurationError` if a demo is up already or the port is taken, and `Unavailable` if
    the data can't be downloaded, or Kirana does not start or answer.
    """
    began = time.perf_counter()
    catalog = options.workdir / "catalog"
    _require_nothing_up(catalog)
    check_port("127.0.0.1", options.port)
    data = _load(options.cache)
    past, later = split_by_time(data.events, PAST_SHARE)
    _prepare_catalog(catalog)
    _run_batch(data, past, options, catalog)
    _publish_and_push(options.workdir, catalog)
    points = sample_points(data.events, data.item_ids, len(past), options.points, POINT_SEED)
    with ExitStack() as stack:
        with err.status("starting the cluster: Ray, Serve, one replica"):
            log = options.workdir / "up.log"
            running = stack.enter_context(server(catalog, options.port, log))
        report = _replay(running.client, data, past, later, points, began)
        _show(report)
        if options.report:
            options.report.write_text(json.dumps(report.as_json(), indent=2) + "\n")
            out.print(f"The results are in {options.report}")
        _show_tour(running.client, data, points, options.keep)
        if options.keep:
            err.print(f"\nReady: Kirana stays up at {running.client.base_url}; Ctrl-C stops it")
            running.process.wait()
            err.print("Kirana was stopped")


def _require_nothing_up(catalog: Path) -> None:
    instance = Instance(catalog)
    state = instance.read()
    if instance.is_held() and state is not None:
        raise ConfigurationError(
            f"a demo is already up at {state.url} (process {state.pid}): stop it with Ctrl-C in "
            f"its terminal, or run {own_command()} down {catalog}"
        )


def _load(cache: Path) -> MovieLens:
    with err.status("downloading MovieLens 100K"):
        data = load_movielens(download_movielens(cache))
    _step(
        f"MovieLens 100K: {len(data.events):,} events of {data.user_count} users on "
        f"{data.item_count:,} films; the first {PAST_SHARE:.0%} are the past"
    )
    return data


def _prepare_catalog(catalog: Path) -> None:
    """Copy the catalog of the demo to `catalog`, and delete the stores of an earlier run."""
    shutil.rmtree(catalog / ".kirana" / "data", ignore_errors=True)
    shutil.copytree(
        CATALOG, catalog, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".kirana", "models")
    )


def _run_batch(data: MovieLens, past: Events, options: DemoOptions, catalog: Path) -> None:
    with err.status("computing features of the past"):
        rows = write_features(data, past, options.workdir / "features")
    _step(f"feature jobs: {rows:,} rows of 12 groups as Parquet")
    with err.status("training two rankers on the past"):
        rankers = train_rankers(data, past, options.train_points)
        write_models(rankers, catalog / "models")
    _step("two rankers trained, exported to ONNX and compared with scikit-learn")


def _publish_and_push(workdir: Path, catalog: Path) -> None:
    settings = local_settings(catalog, {})
    published = publish(settings, catalog)
    _step(f"kirana apply: revision {published.revision}")
    job = Push([workdir / "features"], DirectoryCatalog(catalog).load(published.revision))
    run_until_interrupted(run_push(job, settings))
    _step(f"kirana push: {job.rows:,} rows in the feature store")


def _replay(
    client: httpx.Client,
    data: MovieLens,
    past: Events,
    later: Events,
    points: Points,
    began: float,
) -> Report:
    _step(f"kirana up: {client.base_url}")
    replay = Replay(client, data)
    with progress() as bar:
        loading = bar.add_task("past events", total=len(past))
        replay.post_events(past, lambda count: bar.advance(loading, count))
        events = bar.add_task("later events", total=len(later))
        requested = bar.add_task("lists requested ", total=len(points))
        answers = replay.run(
            later,
            points,
            lambda count: bar.advance(events, count),
            lambda count: bar.advance(requested, count),
        )
    _step(f"{len(later):,} later events replayed, {len(points):,} lists of 20 requested on the way")
    baseline = popularity_lists(data.events, points, data.item_count)
    return make_report(
        answers, baseline, points, past.users, len(later), time.perf_counter() - began
    )


def _show(report: Report) -> None:
    out.print(report.as_table())
    low, high = report.overall.user_interval
    out.print(
        "95% interval of the ratio if users are resampled instead of points: "
        f"{low:.2f} - {high:.2f}"
    )
    out.print(
        f"calls: p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms, one at a time; "
        f"{report.rows_per_s:,.0f} rows scored per second; {report.seconds:.0f} s in all"
    )


def _show_tour(client: httpx.Client, data: MovieLens, points: Points, keep: bool) -> None:
    user = int(data.user_ids[points.users[-1]])
    products = data.item_ids[points.truths[-1][:5]].tolist()
    hint = "" if keep else " ('make demo KEEP=1' leaves Kirana running)"
    out.print(f"\nTry next{hint}:")
    for step in steps(user, products):
        line = try_step(step, client)
        out.print(f"\n# {step.title}", markup=False)
        out.print(line, markup=False)


def _step(text: str) -> None:
    err.print(f"[green]✓[/] {text}")
