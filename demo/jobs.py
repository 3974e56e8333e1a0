"""The batch feature jobs. A job computes the table of a feature group from past events.

A table is a dict of numpy arrays, one per column, with one entry per row. The first columns are
the key. The features for the rankers are shares, biases and lifts, because these keep their meaning
when there are more past events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from kirana.demo.dataset import UNKNOWN_YEAR, Events, FloatArray, IntArray, MovieLens

Array = npt.NDArray[Any]
Table = dict[str, Array]
Matrix = npt.NDArray[np.float64]

NEIGHBOURS = 100
NO_NEIGHBOUR = -1
LIKED_RATING = 4.0
MEAN_RATING = 3.5
RATING_PRIOR_COUNT = 5.0
RECENT_SHARE = 0.125
POPULAR_LENGTH = 100
SHOP = "movielens"
EMBEDDING_SIZE = 32
PROXIMITY_STEPS = 20.0
PROXIMITY_REACH = 80
TASTE_RIDGE = 200.0
NEARBY_RIDGE = 150.0
NEARBY_DIAGONAL_SHARE = 0.3
TIE_SEED = 7


def user_profile(data: MovieLens) -> Table:
    """Return the age and sex of each user, including users without events."""
    return {
        "user_id": data.user_ids,
        "age": data.ages.astype(np.uint8),
        "is_female": data.is_female,
    }


def user_activity(data: MovieLens, past: Events) -> Table:
    """Return how much each user watches, and how the user rates. Users without events are left out.

    `activity` is the user's share of all events, per mille. See `_rating_bias` for
    `rating_bias`. `liked_share` is the share of ratings of at least `LIKED_RATING`.
    """
    counts = np.bincount(past.users, minlength=data.user_count)
    liked = _sums(past.users, past.ratings >= LIKED_RATING, data.user_count)
    rows = np.flatnonzero(counts)
    return {
        "user_id": data.user_ids[rows],
        "activity": _per_mille(counts, len(past))[rows],
        "rating_bias": _rating_bias(past.users, past.ratings, data.user_count)[rows],
        "liked_share": (liked[rows] / counts[rows]).astype(np.float32),
    }


def product_attrs(data: MovieLens, past: Events) -> Table:
    """Return title, main genre and year of each product. An unknown year becomes the median."""
    known_years = data.years[data.years != UNKNOWN_YEAR]
    years = np.where(data.years == UNKNOWN_YEAR, np.median(known_years), data.years)
    main_rows = main_genres(data, past)
    return {
        "product_id": data.item_ids,
        "title": np.array(data.titles),
        "genre": np.array(genre_names(data))[main_rows],
        "year": years.astype(np.int16),
    }


def product_stats(data: MovieLens, past: Events) -> Table:
    """Return the popularity and the rating of each product.

    `share` and `recent_share` are the product's shares of all and of the recent events, per mille.
    `trend` is `recent_share` minus `share`.
    """
    counts = np.bincount(past.items, minlength=data.item_count)
    recent = _recent(past)
    recent_counts = np.bincount(recent.items, minlength=data.item_count)
    share = _per_mille(counts, len(past))
    recent_share = _per_mille(recent_counts, len(recent))
    return {
        "product_id": data.item_ids,
        "share": share,
        "recent_share": recent_share,
        "trend": recent_share - share,
        "rating_bias": _rating_bias(past.items, past.ratings, data.item_count),
    }


def genre_stats(data: MovieLens, past: Events) -> Table:
    """Return each genre's share of all events (0 to 1), and its rating bias.

    An event counts only for the main genre of its product.
    """
    names = genre_names(data)
    genres = main_genres(data, past)[past.items]
    return {
        "genre": np.array(names),
        "share": (np.bincount(genres, minlength=len(names)) / len(past)).astype(np.float32),
        "rating_bias": _rating_bias(genres, past.ratings, len(names)),
    }


def user_genre_affinity(data: MovieLens, past: Events) -> Table:
    """Return how much a user prefers a main genre, for each pair that has events.

    `lift` is the genre's share of the user's events minus its share of all events, shrunk towards
    the neutral 0 for users with few events.
    """
    names = genre_names(data)
    genre_count = len(names)
    genres = main_genres(data, past)[past.items]
    pairs = past.users * genre_count + genres
    size = data.user_count * genre_count
    counts = np.bincount(pairs, minlength=size)
    totals = np.bincount(past.users, minlength=data.user_count).repeat(genre_count)
    genre_shares = np.tile(np.bincount(genres, minlength=genre_count) / len(past), data.user_count)
    rows = np.flatnonzero(counts)
    lift = (counts[rows] - totals[rows] * genre_shares[rows]) / (totals[rows] + RATING_PRIOR_COUNT)
    return {
        "user_id": data.user_ids[rows // genre_count],
        "genre": np.array(names)[rows % genre_count],
        "count": counts[rows].astype(np.int32),
        "lift": lift.astype(np.float32),
        "rating_bias": _rating_bias(pairs, past.ratings, size)[rows],
    }


def shop_popular(data: MovieLens, past: Events) -> Table:
    """Return the most watched products of the recent past, best first, as one row.

    Products with the same share are in a random order, which is the same in each run.
    """
    recent = _recent(past)
    share = _per_mille(np.bincount(recent.items, minlength=data.item_count), len(recent))
    tie_break = np.random.default_rng(TIE_SEED).permutation(data.item_count)
    best = np.lexsort((tie_break, -share))[:POPULAR_LENGTH]
    return {
        "shop_id": np.array([SHOP]),
        "ids": data.item_ids[best].astype(np.int32)[None, :],
        "weights": share[best][None, :],
    }


def product_embedding(data: MovieLens, past: Events) -> Table:
    """Return a vector for each product, float16[items, EMBEDDING_SIZE].

    The vectors come from a truncated SVD of the matrix of products and users, which has a 1 for
    each product that a user watched. Popular products are damped. The vectors are scaled to unit
    length.
    """
    seen = np.zeros((data.item_count, data.user_count))
    seen[past.items, past.users] = 1.0
    damped = seen / np.sqrt(np.maximum(seen.sum(axis=1, keepdims=True), 1.0))
    start = np.random.default_rng(TIE_SEED).standard_normal(min(damped.shape))
    left, strengths, _ = svds(csr_matrix(damped), k=EMBEDDING_SIZE, v0=start)
    vectors = left * strengths
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    return {"product_id": data.item_ids, "vector": unit.astype(np.float16)}


def product_neighbours(data: MovieLens, past: Events) -> dict[str, Table]:
    """Return four tables of neighbour lists: `ids` int32[items, K], `weights` float32[items, K].

    next: products that users watch shortly after a product. Popular products are damped.
    nearby: products that users watch shortly before or after a product. A ridge regression
        discounts what other neighbours explain.
    taste: products that the same users watch at any time, with the same regression (EASE).
    alike: products with similar embeddings, by cosine.
    """
    counts = np.bincount(past.items, minlength=data.item_count).astype(np.float64)
    following = proximity(data, past)
    vectors = product_embedding(data, past)["vector"].astype(np.float64)
    damping = np.sqrt(counts[:, None] + 10.0) * (counts[None, :] + 20.0) ** 0.3
    return {
        "next": _neighbour_table(data, following / damping),
        "nearby": _neighbour_table(data, _nearby_weights(following, counts)),
        "taste": _neighbour_table(data, _ridge_weights(co_occurrence(data, past), TASTE_RIDGE)),
        "alike": _neighbour_table(data, vectors @ vectors.T),
    }


def proximity(data: MovieLens, past: Events) -> Matrix:
    """Return how closely items follow each other in the histories of users, float64[items, items].

    Entry [i, j] says how closely item j follows item i. If j comes `steps` events after i in the
    history of a user, exp(-steps / PROXIMITY_STEPS) is added to the entry, unless `steps` is more
    than `PROXIMITY_REACH`.
    """
    order = np.argsort(past.users, kind="stable")
    users, items = past.users[order], past.items[order]
    size = data.item_count
    total = np.zeros(size * size)
    for steps in range(1, PROXIMITY_REACH + 1):
        same_user = users[steps:] == users[:-steps]
        pairs = (items[:-steps] * size + items[steps:])[same_user]
        np.add.at(total, pairs, np.exp(-steps / PROXIMITY_STEPS))
    return total.reshape(size, size)


def co_occurrence(data: MovieLens, past: Events) -> Matrix:
    """Return the number of users who have watched both item i and item j, float64[items, items]."""
    seen = np.zeros((data.user_count, data.item_count))
    seen[past.users, past.items] = 1.0
    return seen.T @ seen


def genre_names(data: MovieLens) -> list[str]:
    """Return the names of all genres, sorted."""
    return sorted({genre for genres in data.genres for genre in genres})


def main_genres(data: MovieLens, past: Events) -> IntArray:
    """Return the main genre of each item, as positions in `genre_names`, int64[items].

    The main genre is the one of the item's genres that has the fewest events.
    """
    position = {name: index for index, name in enumerate(genre_names(data))}
    frequency = np.zeros(len(position))
    counts = np.bincount(past.items, minlength=data.item_count)
    for genres, count in zip(data.genres, counts, strict=True):
        for genre in genres:
            frequency[position[genre]] += count
    return np.array(
        [
            min((position[genre] for genre in genres), key=lambda index: frequency[index])
            for genres in data.genres
        ],
        dtype=np.int64,
    )


def _nearby_weights(following: Matrix, counts: Matrix) -> Matrix:
    """Return ridge weights of proximity in both directions. `counts` are the events per item."""
    gram = following + following.T
    np.fill_diagonal(gram, NEARBY_DIAGONAL_SHARE * counts * gram.sum() / counts.sum())
    return _ridge_weights(gram, NEARBY_RIDGE)


def _ridge_weights(gram: Matrix, ridge: float) -> Matrix:
    """Return the item-to-item weights of EASE, a ridge regression of each item on all others."""
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    weights: Matrix = -inverse / np.diag(inverse)[None, :]
    return weights


def _neighbour_table(data: MovieLens, weights: Matrix) -> Table:
    """Return the `NEIGHBOURS` items with the largest positive weights for each item, best first.

    Shorter lists end with `NO_NEIGHBOUR` ids of weight 0.
    """
    weights = weights.copy()
    np.fill_diagonal(weights, 0.0)
    best = np.argpartition(-weights, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    values = np.take_along_axis(weights, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    return {
        "product_id": data.item_ids,
        "ids": np.where(values > 0, data.item_ids[best], NO_NEIGHBOUR).astype(np.int32),
        "weights": np.maximum(values, 0.0).astype(np.float32),
    }


def _recent(past: Events) -> Events:
    return past.slice(round(len(past) * (1.0 - RECENT_SHARE)), len(past))


def _per_mille(counts: IntArray, total: int) -> FloatArray:
    return (1000.0 * counts / total).astype(np.float32)


def _sums(keys: IntArray, values: Array, size: int) -> Matrix:
    sums: Matrix = np.bincount(keys, weights=values.astype(np.float64), minlength=size).astype(
        np.float64
    )
    return sums


def _rating_bias(keys: IntArray, ratings: FloatArray, size: int) -> FloatArray:
    """Return the mean rating of each key minus `MEAN_RATING`, float32[size].

    It is shrunk towards 0, as if each key had `RATING_PRIOR_COUNT` more ratings of `MEAN_RATING`.
    """
    counts = np.bincount(keys, minlength=size)
    bias = _sums(keys, ratings - MEAN_RATING, size) / (counts + RATING_PRIOR_COUNT)
    return bias.astype(np.float32)
