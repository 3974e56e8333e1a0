"""URLs of Cassandra: the settings that they hold, and the errors in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.cassandra.url import CassandraUrl
from kirana.url_options import Tls


def test_a_short_url_has_defaults_for_most() -> None:
    url = CassandraUrl.parse("cassandra://db/shop")
    assert url.hosts == (("db", 9042),)
    assert url.keyspace == "shop"
    assert (url.username, url.data_centre, url.replication, url.tls) == (None,) * 4
    assert (url.read_consistency, url.write_consistency) == ("LOCAL_QUORUM", "LOCAL_QUORUM")


def test_a_url_may_name_several_hosts_and_a_user() -> None:
    url = CassandraUrl.parse("scylla://me:p%40ss@a:9142,b,[::1]:9043/shop_2")
    assert url.hosts == (("a", 9142), ("b", 9042), ("::1", 9043))
    assert (url.username, url.password, url.keyspace) == ("me", "p@ss", "shop_2")
    assert url.name == "scylla://me@a:9142,b,[::1]:9043/shop_2"


def test_options_are_read() -> None:
    url = CassandraUrl.parse(
        "cassandra://db/shop?data_centre=dc1&replication=3&read=local_one&write=EACH_QUORUM"
        "&timeout=0.5&in_flight=64&username=me&password=secret"
    )
    assert (url.data_centre, url.replication, url.timeout_s, url.in_flight) == ("dc1", 3, 0.5, 64)
    assert (url.read_consistency, url.write_consistency) == ("LOCAL_ONE", "EACH_QUORUM")
    assert (url.username, url.password) == ("me", "secret")
    assert "secret" not in url.name


def test_files_of_tls_are_read(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    files = f"ssl_ca_certs={file}&ssl_certfile={file}&ssl_keyfile={file}"
    url = CassandraUrl.parse(f"cassandra://db/shop?tls=true&ssl_check_hostname=false&{files}")
    assert url.tls == Tls(str(file), str(file), str(file), check_hostname=False)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("cassandra://db", "it must end with the name of a keyspace"),
        ("cassandra://db/", "it must end with the name of a keyspace"),
        ("cassandra://db/a/b", "it must end with the name of a keyspace"),
        ("cassandra://db/1shop", "it must end with the name of a keyspace"),
        ("cassandra://db/" + "a" * 49, "it must end with the name of a keyspace"),
        ('cassandra://db/a"b', "it must end with the name of a keyspace"),
        ("cassandra:///shop", "an address must be host:port, not ''"),
        ("cassandra://db:x/shop", "an address must be host:port, not 'db:x'"),
        ("cassandra://db,:1/shop", "an address must be host:port, not ':1'"),
        ("cassandra://db/shop?reed=ONE", "unknown option 'reed': choose one of data_centre"),
        ("cassandra://db/shop?read=SOME", "read must be one of ONE, TWO, THREE"),
        ("cassandra://db/shop?read=each_quorum", "read: EACH_QUORUM is for writes only"),
        ("cassandra://db/shop?timeout=0", "timeout must be a number above 0, not '0'"),
        ("cassandra://db/shop?timeout=nan", "timeout must be a number above 0, not 'nan'"),
        ("cassandra://db/shop?replication=0", "replication must be an integer from 1 to 32768"),
        ("cassandra://db/shop?in_flight=1.5", "in_flight must be an integer from 1 to 32768"),
        ("cassandra://db/shop?tls=yes", "tls must be true or false, not 'yes'"),
        ("cassandra://db/shop?data_centre=", "data_centre must not be empty"),
        ("cassandra://db/shop?tls=true&ssl_ca_certs=/none", "there is no file '/none'"),
        ("cassandra://db/shop?ssl_check_hostname=false", "options of TLS need tls=true"),
    ],
)
def test_a_wrong_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        CassandraUrl.parse(url)
    assert reason in str(caught.value)


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    with pytest.raises(ValueError, match="must be given together"):
        CassandraUrl.parse(f"cassandra://db/shop?tls=true&ssl_certfile={file}")
