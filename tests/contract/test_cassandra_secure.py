"""A real Cassandra that takes clients with TLS and a password only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kirana.cassandra.url import CassandraUrl
from kirana.codecs import CODECS
from kirana.errors import Unavailable
from kirana.stores import open_feature_store
from kirana.stores.cassandra_tables import CassandraTables
from tests.cassandra_server import KEYSTORE_PASSWORD, CassandraServer
from tests.certificates import keystore
from tests.contract.test_feature_store import value
from tests.store_calls import read_values, write_rows
from tests.waiting import wait_for

pytestmark = pytest.mark.cassandra


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a keyspace with a table of products."""
    folder = tmp_path_factory.mktemp("secure_cassandra")
    store, certificate = keystore(folder, KEYSTORE_PASSWORD)
    with CassandraServer(folder, keystore=store) as server:
        address = f"cassandra:cassandra@{server.address}"
        url = f"cassandra://{address}/shop?tls=true&ssl_ca_certs={certificate}&timeout=30"

        def created() -> bool:
            return CassandraTables(CassandraUrl.parse(url)).create(["product"]) == ["product"]

        # The server makes its first user when it has started.
        wait_for(created, "the table is made", ignoring=Unavailable)
        yield url


async def test_rows_are_written_and_read(url: str) -> None:
    store = open_feature_store(url)
    await write_rows(store, [b"f:product.g:a"], [value(5)], CODECS["packed"])
    assert await read_values(store, [b"f:product.g:a"]) == [value(5)]
    await store.close()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("cassandra:cassandra@", "cassandra:wrong@", "refused the user or the password"),
        ("cassandra:cassandra@", "", "refused the user or the password.*requires"),
    ],
)
def test_a_client_that_is_refused_says_why(url: str, old: str, new: str, reason: str) -> None:
    refused = CassandraUrl.parse(url.replace(old, new))
    with pytest.raises(Unavailable, match=reason) as caught:
        CassandraTables(refused).missing(["product"])
    assert "wrong@" not in str(caught.value)


def test_a_client_without_tls_is_refused(url: str) -> None:
    plain = CassandraUrl.parse(url.partition("?")[0] + "?timeout=2")
    with pytest.raises(Unavailable, match="does not answer"):
        CassandraTables(plain).missing(["product"])
