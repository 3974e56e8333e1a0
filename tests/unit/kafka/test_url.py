"""URLs of Kafka: the settings that they hold, and the errors in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.kafka.url import KafkaUrl
from kirana.url_options import Tls


def test_a_short_url_has_defaults_for_most() -> None:
    url = KafkaUrl.parse("kafka://broker/features")
    assert (url.brokers, url.topic) == (("broker:9092",), "features")
    assert (url.username, url.password, url.tls, url.replication) == (None,) * 4
    assert (url.partitions, url.retention_hours, url.compression) == (8, 168.0, "lz4")


def test_a_url_may_name_several_brokers_and_a_user() -> None:
    url = KafkaUrl.parse("kafka://me:p%40ss@a:1,b/shop.features?sasl=scram-sha-256")
    assert url.brokers == ("a:1", "b:9092")
    assert (url.username, url.password, url.mechanism) == ("me", "p@ss", "SCRAM-SHA-256")
    assert url.name == "kafka://me@a:1,b/shop.features?sasl=scram-sha-256"
    assert "p@ss" not in repr(url)


def test_options_are_read(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    url = KafkaUrl.parse(
        "kafka://a/features?partitions=3&replication=2&retention_hours=1.5&compression=zstd"
        f"&timeout=2&tls=true&ssl_ca_certs={file}"
    )
    assert (url.partitions, url.replication, url.retention_hours) == (3, 2, 1.5)
    assert (url.compression, url.timeout_s, url.tls) == ("zstd", 2.0, Tls(str(file)))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("kafka://a", "it must end with the name of a topic"),
        ("kafka://a/b/c", "it must end with the name of a topic"),
        ("kafka://a/..", "it must end with the name of a topic"),
        ("kafka://a/" + "b" * 201, "it must end with the name of a topic"),
        ("kafka:///features", "an address must be host:port, not ''"),
        ("kafka://a/features?partition=3", "unknown option 'partition': choose one of partitions"),
        ("kafka://a/features?partitions=0", "partitions must be an integer from 1"),
        ("kafka://a/features?retention_hours=-1", "retention_hours must be a number above 0"),
        ("kafka://a/features?compression=lzma", "compression must be one of none, gzip"),
        ("kafka://a/features?sasl=OAUTH", "sasl must be one of PLAIN"),
        ("kafka://a/features?sasl=PLAIN", "sasl needs a user and a password"),
        ("kafka://me@a/features", "a user and a password must be given together"),
        ("kafka://a/features?ssl_check_hostname=false", "options of TLS need tls=true"),
    ],
)
def test_a_wrong_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        KafkaUrl.parse(url)
