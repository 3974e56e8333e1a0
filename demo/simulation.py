"""The flow of the demo in numpy. It makes training data for the rankers from past events.

A test in `tests/e2e` compares its feature matrix with Kirana's for the same request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana.demo import jobs
from kirana.demo.dataset import Events, FloatArray, IntArray, MovieLens
from kirana.demo.jobs import NO_NEIGHBOUR, Table
from kirana.demo.protocol import Points
from kirana.flow.generators.neighbours import best_neighbours, seed_ages

BoolArray = npt.NDArray[np.bool_]
NEGATIVE_SHARE = 0.15


@dataclass(frozen=True)
class Generator:
    """A candidate generator of the flow.

    `table` is the name of its table of neighbours. The generator takes the newest `seeds`
    interactions of the user, weights them by their age with `decay`, and returns the `limit` best
    neighbours.
    """

    table: str
    seeds: int
    decay: float
    limit: int


GENERATORS = (
    Generator(table="next", seeds=10, decay=0.8, limit=300),
    Generator(table="nearby", seeds=10, decay=0.9, limit=300),
    Generator(table="taste", seeds=100, decay=0.99, limit=300),
    Generator(table="alike", seeds=10, decay=0.9, limit=100),
)
"""The generators in graphs/demo/flow.yaml and graphs/demo/candidates.yaml."""

COLUMNS = (
    *(f"input.{generator.table}" for generator in GENERATORS),
    "input.popular",
    "product.stats.share",
    "product.stats.recent_share",
    "product.stats.trend",
    "product.stats.rating_bias",
    "product.attrs.year",
    "genre.stats.share",
    "genre.stats.rating_bias",
    "user_genre.affinity.lift",
    "user_genre.affinity.rating_bias",
    "user.activity.rating_bias",
    "user.activity.activity",
    "user.profile.age",
    "user.profile.is_female",
)
"""The columns of the feature matrix, in the order of graphs/demo/ranker.yaml."""


@dataclass(frozen=True)
class Samples:
    """Candidates of many points: `features` have the shape [n, F], the others [n].

    The rating of a candidate that was not watched is 0.
    """

    features: FloatArray
    watched: BoolArray
    ratings: FloatArray


@dataclass(frozen=True)
class Tables:
    """The feature tables as arrays that are indexed by row numbers of users, items and genres.

    With U users, I items, G genres and K neighbours, the shapes are: `neighbours` ids and weights
    [I, K], `popular` and `main_genres` [I], `products` [I, 5] (share, recent share, trend, rating
    bias, year), `genres` [G, 2] (share, rating bias), `user_genres` [U, G, 2] (lift, rating bias)
    and `users` [U, 4] (rating bias, activity, age, is_female).
    """

    neighbours: dict[str, tuple[IntArray, FloatArray]]
    popular: FloatArray
    products: FloatArray
    main_genres: IntArray
    genres: FloatArray
    user_genres: FloatArray
    users: FloatArray


def build_tables(data: MovieLens, past: Events) -> Tables:
    """Run all feature jobs on `past`, and return their tables.

    The rating bias and the activity of a user without events are 0. So are the features of a user
    and a genre without common events.
    """
    user_row = {int(key): row for row, key in enumerate(data.user_ids)}
    item_row = {int(key): row for row, key in enumerate(data.item_ids)}
    genre_row = {name: row for row, name in enumerate(jobs.genre_names(data))}
    item_row[NO_NEIGHBOUR] = NO_NEIGHBOUR

    profile, activity = jobs.user_profile(data), jobs.user_activity(data, past)
    users = np.zeros((data.user_count, 4), dtype=np.float32)
    users[[user_row[int(key)] for key in activity["user_id"]], :2] = _columns(
        activity, "rating_bias", "activity"
    )
    users[:, 2:] = _columns(profile, "age", "is_female")

    attrs, stats = jobs.product_attrs(data, past), jobs.product_stats(data, past)
    affinity = jobs.user_genre_affinity(data, past)
    user_genres = np.zeros((data.user_count, len(genre_row), 2), dtype=np.float32)
    user_genres[
        [user_row[int(key)] for key in affinity["user_id"]],
        [genre_row[str(name)] for name in affinity["genre"]],
    ] = _columns(affinity, "lift", "rating_bias")

    top_list = jobs.shop_popular(data, past)
    popular = np.zeros(data.item_count, dtype=np.float32)
    popular[[item_row[int(key)] for key in top_list["ids"][0]]] = top_list["weights"][0]

    return Tables(
        neighbours={
            name: (np.vectorize(item_row.__getitem__)(table["ids"]), table["weights"])
            for name, table in jobs.product_neighbours(data, past).items()
        },
        popular=popular,
        products=np.hstack(
            [
                _columns(stats, "share", "recent_share", "trend", "rating_bias"),
                _columns(attrs, "year"),
            ]
        ),
        main_genres=np.array([genre_row[str(name)] for name in attrs["genre"]]),
        genres=_columns(jobs.genre_stats(data, past), "share", "rating_bias"),
        user_genres=user_genres,
        users=users,
    )


def answer_request(
    tables: Tables, user: int, history: IntArray, times: IntArray
) -> tuple[IntArray, FloatArray]:
    """Return the candidates of one request: their item row numbers [n] and features [n, F].

    `history` has the item row numbers of the user's interactions, newest first, and `times` has
    their Unix seconds. Items in the history are not candidates.
    """
    scores = np.stack(
        [_generate(tables, generator, history, times) for generator in GENERATORS]
        + [tables.popular]
    )
    candidate: BoolArray = np.any(scores > 0, axis=0)
    candidate[history] = False
    items = np.flatnonzero(candidate)
    genres = tables.main_genres[items]
    features = np.hstack(
        [
            scores[:, items].T,
            tables.products[items],
            tables.genres[genres],
            tables.user_genres[user, genres],
            np.broadcast_to(tables.users[user], (len(items), tables.users.shape[1])),
        ]
    )
    return items, features.astype(np.float32)


def _generate(
    tables: Tables, generator: Generator, history: IntArray, times: IntArray
) -> FloatArray:
    """Return the scores of all items by one generator, float32[I]. Items not returned have 0."""
    ids, weights = tables.neighbours[generator.table]
    seeds = history[: generator.seeds]
    factors = np.float32(generator.decay) ** seed_ages(times[: generator.seeds])
    best, totals = best_neighbours(ids[seeds], weights[seeds], factors, generator.limit)
    scores = np.zeros(len(tables.products), dtype=np.float32)
    scores[best] = totals
    return scores


def collect_samples(tables: Tables, points: Points, seed: int) -> Samples:
    """Return the watched candidates of all points, and a random `NEGATIVE_SHARE` of the others."""
    rng = np.random.default_rng(seed)
    features, watched, ratings = [], [], []
    for i in range(len(points)):
        items, rows = answer_request(
            tables, int(points.users[i]), points.histories[i], points.history_times[i]
        )
        rating_of = np.zeros(len(tables.products), dtype=np.float32)
        rating_of[points.truths[i]] = points.truth_ratings[i]
        row_ratings = rating_of[items]
        keep = (row_ratings > 0) | (rng.random(len(items)) < NEGATIVE_SHARE)
        features.append(rows[keep])
        ratings.append(row_ratings[keep])
        watched.append(row_ratings[keep] > 0)
    return Samples(np.concatenate(features), np.concatenate(watched), np.concatenate(ratings))


def _columns(table: Table, *names: str) -> FloatArray:
    """Return the named columns of a table as a matrix, float32[rows, names]."""
    return np.column_stack([table[name] for name in names]).astype(np.float32)
