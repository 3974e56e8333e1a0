"""Options in the queries of URLs."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from kirana.url_options import (
    TLS_PARSERS,
    Tls,
    count,
    flag,
    parse_options,
    positive,
    take_tls,
    text,
)
from tests.certificates import self_signed

PARSERS = {"name": ("title", text), "n": ("number", count), **TLS_PARSERS}


def test_options_are_parsed_into_their_fields() -> None:
    assert parse_options("name=a%20b&n=3", PARSERS) == {"title": "a b", "number": 3}
    assert parse_options("", PARSERS) == {}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("nam=a", "unknown option 'nam': choose one of name, n, tls"),
        ("name=", "name must not be empty"),
        ("n=0", "n must be an integer from 1 to 32768, not '0'"),
        ("n=32769", "n must be an integer"),
        ("n=1.5", "n must be an integer"),
        ("tls=yes", "tls must be true or false, not 'yes'"),
        ("ssl_ca_certs=/nowhere", "ssl_ca_certs: there is no file '/nowhere'"),
    ],
)
def test_a_wrong_option_is_named(query: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_options(query, PARSERS)


@pytest.mark.parametrize("value", ["0", "-1", "x", "inf", "nan", ""])
def test_a_number_must_be_positive(value: str) -> None:
    with pytest.raises(ValueError, match=f"timeout must be a number above 0, not '{value}'"):
        positive("timeout", value)
    assert positive("timeout", "0.5") == 0.5
    assert not flag("tls", "false")


def test_tls_is_off_without_its_option() -> None:
    options = {"title": "a"}
    assert take_tls(options) is None
    assert options == {"title": "a"}
    with pytest.raises(ValueError, match="options of TLS need tls=true"):
        take_tls({"ssl_ca_certs": "a"})
    with pytest.raises(ValueError, match="must be given together"):
        take_tls({"tls": True, "ssl_certfile": "a"})


def test_a_context_has_the_files_of_the_options(tmp_path: Path) -> None:
    key, certificate = map(str, self_signed(tmp_path))
    options = {"tls": True, "ssl_ca_certs": certificate, "ssl_certfile": certificate}
    options |= {"ssl_keyfile": key, "ssl_check_hostname": False, "title": "a"}
    tls = take_tls(options)
    assert tls == Tls(certificate, certificate, key, check_hostname=False)
    assert options == {"title": "a"}
    context = tls.context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname
    assert [entry["subject"] for entry in context.get_ca_certs()] == [
        ((("commonName", "localhost"),),)
    ]
