"""Which address a request goes to."""

from __future__ import annotations

from kirana.client.balancer import AVOIDED_S, Balancer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_direct_ports_all_goes_through_the_front_door() -> None:
    assert Balancer("http://front").choose().url == "http://front"


def test_of_two_the_one_with_fewer_under_way_is_taken() -> None:
    balancer = Balancer("http://front")
    balancer.update(["http://a", "http://b"])
    first = balancer.choose()
    with balancer.using(first):
        assert {balancer.choose().url for _ in range(20)} == {"http://a", "http://b"} - {first.url}
    assert {balancer.choose().url for _ in range(50)} == {"http://a", "http://b"}


def test_every_port_of_many_is_used() -> None:
    balancer = Balancer("http://front")
    urls = [f"http://{at}" for at in range(5)]
    balancer.update(urls)
    assert {balancer.choose().url for _ in range(500)} == set(urls)


def test_what_failed_is_left_alone_for_a_while() -> None:
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


def test_what_stays_keeps_its_count_and_what_goes_is_forgotten() -> None:
    balancer = Balancer("http://front")
    balancer.update(["http://a"])
    with balancer.using(balancer.choose()):
        balancer.update(["http://a", "http://b"])
        assert balancer.choose().url == "http://b"
        balancer.update(["http://a"])
        assert balancer.direct_urls == ["http://a"]
        assert balancer.choose().outstanding == 1
