"""The client library of Kirana: `Client`, `AsyncClient` and the replies that they return.

    from kirana.client import Client

    with Client("http://127.0.0.1:8000") as kirana:
        ranking = kirana.infer("ranker", {"user_id": "7", "product_id": ["1", "2"]}, top_k=10)

Install it with `pip install kirana[client]`, which does not install Ray.
"""

from kirana.client.asynchronous import AsyncClient
from kirana.client.replies import (
    Accepted,
    CatalogListing,
    CatalogRecord,
    Deleted,
    Features,
    FlowRun,
    InteractionList,
    Ranking,
    Written,
)
from kirana.client.synchronous import Client

__all__ = [
    "Accepted",
    "AsyncClient",
    "CatalogListing",
    "CatalogRecord",
    "Client",
    "Deleted",
    "Features",
    "FlowRun",
    "InteractionList",
    "Ranking",
    "Written",
]
