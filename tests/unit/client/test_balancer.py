"""How the balancer chooses the address of a request."""

from __future__ import annotations

from kirana.client.balancer import AVOIDED_S, Balancer
from tests.clock import Clock


def test_without_direct_ports_every_request_goes_to_the_front_door() -> None:
    assert Balancer("http://front").choose().url == "http://front"


def test_the_port_with_fewer_requests_in_progress_is_chosen() -> None:
    balancer = Balancer("http://front")
    balancer.update(["http://a", "http://b"])
    first = balancer.choose()
    with balancer.using(first):
        assert {balancer.choose().url for _ in range(20)} == {"http://a", "http://b"} - {first.url}
    assert {balancer.choose().url for _ in range(50)} == {"http://a", "http://b"}


def test_every_direct_port_is_used() -> None:
    balancer = Balancer("http://front")
    urls = [f"http://{i}" for i in range(5)]
    balancer.update(urls)
    assert {balancer.choose().url for _ in range(500)} == set(urls)


def test_a_port_that_failed_is_avoided_for_a_while() -> None:
    clock = Clock()
    balancer = Balancer("http://front", clock=clock)
    balancer.update(["http://a", "http://b"])
    failed = balancer.choose()
    balancer.failed(failed)
    assert failed.url not in {balancer.choose().url for _ in range(20)}
    other = balancer.choose()
    balancer.failed(other)
    assert balancer.choose().url == "http://front"
    clock.now += AVOIDED_S
    assert balancer.choose().url in ("http://a", "http://b")


def test_an_update_keeps_the_counts_of_known_ports_and_drops_the_others() -> None:
    balancer = Balancer("http://front")
    balancer.update(["http://a"])
    with balancer.using(balancer.choose()):
        balancer.update(["http://a", "http://b"])
        assert balancer.choose().url == "http://b"
        balancer.update(["http://a"])
        assert balancer.direct_urls == ["http://a"]
        assert balancer.choose().outstanding == 1
