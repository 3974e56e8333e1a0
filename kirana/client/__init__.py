"""What other programs import to call Kirana: `Client`, `AsyncClient`, typed replies, errors.

    from kirana.client import Client

    with Client("http://127.0.0.1:8000") as kirana:
        found = kirana.infer("ranker", {"user_id": "7", "product_id": ["1", "2"]}, top_k=10)

Needs `pip install kirana[client]`, which brings no Ray.
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
