"""The results of a run: quality compared with the baseline, and speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.table import Table as TextTable

from kirana.demo.dataset import IntArray
from kirana.demo.protocol import Points, ndcg_and_recall
from kirana.demo.replay import Answers

DRAWS = 2_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean metrics over a set of points, for Kirana and for the popularity baseline.

    `interval` is the 95% confidence interval of `ratio`, from a bootstrap over points.
    `user_interval` is the same from a bootstrap over users. It is wider, because the points of one
    user are similar.
    """

    points: int
    ndcg: float
    ndcg_popularity: float
    recall: float
    recall_popularity: float
    interval: tuple[float, float]
    user_interval: tuple[float, float]

    @property
    def ratio(self) -> float:
        """The NDCG divided by the NDCG of the baseline, or NaN if the latter is 0."""
        return self.ndcg / self.ndcg_popularity if self.ndcg_popularity else float("nan")


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one run.

    `known` covers the points of users who have past events, and `cold` covers all other points.
    Each is None if there are no points to cover. `rows_per_s` is the number of scored candidates
    per second of waiting for replies. `seconds` is the duration of the whole run.
    """

    overall: Quality
    known: Quality | None
    cold: Quality | None
    events_replayed: int
    p50_ms: float
    p99_ms: float
    rows_per_s: float
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Return the content of the file for `--report`."""
        overall = self.overall
        return {
            "ndcg_at_10": overall.ndcg,
            "ndcg_at_10_popularity": overall.ndcg_popularity,
            "ndcg_ratio": overall.ratio,
            "ndcg_ratio_low": overall.interval[0],
            "ndcg_ratio_high": overall.interval[1],
            "ndcg_ratio_low_by_user": overall.user_interval[0],
            "ndcg_ratio_high_by_user": overall.user_interval[1],
            "ndcg_ratio_known_users": self.known.ratio if self.known else None,
            "ndcg_ratio_cold_users": self.cold.ratio if self.cold else None,
            "recall_at_20": overall.recall,
            "recall_at_20_popularity": overall.recall_popularity,
            "points": overall.points,
            "events_replayed": self.events_replayed,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "rows_per_s": self.rows_per_s,
            "seconds": self.seconds,
        }

    def as_table(self) -> TextTable:
        """Return a table for the terminal. A cell like "0.1 / 0.2" is Kirana / baseline."""
        table = TextTable(title="Kirana compared with popularity, on the same points")
        for name in ("users", "points", "NDCG@10", "recall@20", "NDCG ratio", "95% interval"):
            table.add_column(name, justify="left" if name == "users" else "right")
        for name, quality in (("all", self.overall), ("known", self.known), ("cold", self.cold)):
            if quality is not None:
                low, high = quality.interval
                table.add_row(
                    name,
                    str(quality.points),
                    f"{quality.ndcg:.3f} / {quality.ndcg_popularity:.3f}",
                    f"{quality.recall:.3f} / {quality.recall_popularity:.3f}",
                    f"{quality.ratio:.2f}",
                    f"{low:.2f} - {high:.2f}",
                )
        return table


def make_report(
    answers: Answers,
    baseline: list[IntArray],
    points: Points,
    past_users: IntArray,
    events_replayed: int,
    seconds: float,
) -> Report:
    """Compare the lists in `answers` with the lists of the baseline.

    `past_users` are the users of the past events, who count as known. `seconds` is the duration of
    the whole run.
    """
    ours = ndcg_and_recall(answers.lists, points)
    theirs = ndcg_and_recall(baseline, points)
    known = np.isin(points.users, past_users)

    def quality(chosen: npt.NDArray[np.bool_]) -> Quality | None:
        return _quality(ours, theirs, points.users, chosen) if chosen.any() else None

    overall = quality(np.ones(len(points), dtype=np.bool_))
    assert overall is not None
    p50, p99 = np.percentile(np.array(answers.seconds) * 1000, [50, 99])
    return Report(
        overall=overall,
        known=quality(known),
        cold=quality(~known),
        events_replayed=events_replayed,
        p50_ms=float(p50),
        p99_ms=float(p99),
        rows_per_s=answers.rows_scored / sum(answers.seconds),
        seconds=seconds,
    )


def _quality(
    ours: tuple[Floats, Floats],
    theirs: tuple[Floats, Floats],
    users: IntArray,
    chosen: npt.NDArray[np.bool_],
) -> Quality:
    ndcg, ndcg_popularity = ours[0][chosen], theirs[0][chosen]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(ndcg), size=(DRAWS, len(ndcg)))
    _, user_of = np.unique(users[chosen], return_inverse=True)
    user_draws = rng.integers(0, user_of.max() + 1, size=(DRAWS, int(user_of.max()) + 1))
    return Quality(
        points=int(chosen.sum()),
        ndcg=float(ndcg.mean()),
        ndcg_popularity=float(ndcg_popularity.mean()),
        recall=float(ours[1][chosen].mean()),
        recall_popularity=float(theirs[1][chosen].mean()),
        interval=_interval(ndcg[draws].sum(axis=1), ndcg_popularity[draws].sum(axis=1)),
        user_interval=_interval(
            np.bincount(user_of, ndcg)[user_draws].sum(axis=1),
            np.bincount(user_of, ndcg_popularity)[user_draws].sum(axis=1),
        ),
    )


def _interval(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Return the 95% interval of the ratio of two metrics, from their values per draw."""
    ratios = ours[theirs > 0] / theirs[theirs > 0]
    if not len(ratios):
        return float("nan"), float("nan")
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
