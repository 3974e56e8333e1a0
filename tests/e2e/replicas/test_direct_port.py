"""Direct ports under load, while replicas are killed, scaled and replaced."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack

from tests.e2e.direct_client import Load, SlowRequest
from tests.e2e.serving import BODY, INFER, Serving, listening_on
from tests.waiting import wait_for


def _wait_until_each_answers(load: Load, urls: list[str]) -> None:
    """Wait until each direct port has answered more than 20 further requests."""
    before = load.answered.copy()

    def answered() -> bool:
        assert load.wrong == []
        return all(load.answered[url] > before[url] + 20 for url in urls)

    wait_for(answered, "every direct port answers")


def _roll_and_lose_nothing(serving: Serving, old: Mapping[str, str]) -> None:
    """Replace both replicas under load, and check that no request is lost.

    `old` has their direct ports by replica.
    """
    with serving.load() as load:
        _wait_until_each_answers(load, list(old.values()))
        # On a busy machine, a request may take seconds.
        serving.deploy(2, timeout_ms=14_000)
        new = serving.wait_for_endpoints(
            lambda ports: len(ports) == 2 and not ports.keys() & old.keys(), "two new replicas"
        )
        _wait_until_each_answers(load, list(new.values()))
    assert (load.lost, load.wrong) == ([], [])


def test_a_replica_killed_under_load_loses_only_requests_in_flight(serving: Serving) -> None:
    before = serving.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
    killed_replica, killed_url = sorted(before.items())[0]
    with serving.load() as load:
        _wait_until_each_answers(load, list(before.values()))
        process = listening_on(killed_url)
        killed_at = time.monotonic()
        process.kill()
        process.wait()
        died_at = time.monotonic()
        after = serving.wait_for_endpoints(
            lambda ports: len(ports) == 2 and killed_replica not in ports, "another replica"
        )
        _wait_until_each_answers(load, list(after.values()))
    assert load.wrong == []
    assert {lost.url for lost in load.lost} <= {killed_url}
    # A thread may lose two requests: Linux closes the connections of a killed process before its
    # port, so a quick client can connect once more to a process that accepts no connections.
    assert [lost for lost in load.lost if lost.sent > died_at or lost.noticed < killed_at] == []
    assert len(load.lost) <= 2 * load.threads


def test_scaling_up_and_down_under_load_loses_no_request(serving: Serving) -> None:
    with serving.load() as load:
        serving.deploy(3)
        of_three = serving.wait_for_endpoints(lambda ports: len(ports) == 3, "three replicas")
        _wait_until_each_answers(load, list(of_three.values()))
        serving.deploy(1)
        of_one = serving.wait_for_endpoints(lambda ports: len(ports) == 1, "one replica")
        _wait_until_each_answers(load, list(of_one.values()))
    assert of_one.items() <= of_three.items()
    assert (load.lost, load.wrong) == ([], [])


def test_a_replica_that_stops_finishes_a_slow_request(serving: Serving) -> None:
    serving.deploy(2)
    both = serving.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
    with serving.load() as load, ExitStack() as stack:
        _wait_until_each_answers(load, list(both.values()))
        slow_requests = [
            stack.enter_context(SlowRequest(url, INFER, BODY)) for url in both.values()
        ]
        serving.deploy(1)
        serving.wait_for_endpoints(lambda ports: len(ports) == 1, "one replica")
        # The replica that stops has withdrawn its port, but must still finish its slow request.
        replies = [request.finish() for request in slow_requests]
    assert replies == [200, 200]
    assert (load.lost, load.wrong) == ([], [])


def test_replacing_all_replicas_under_load_loses_no_request(serving: Serving) -> None:
    serving.deploy(2)
    old = serving.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
    _roll_and_lose_nothing(serving, old)


def test_load_on_the_direct_ports_alone_adds_a_replica(serving: Serving) -> None:
    serving.deploy(1)
    serving.wait_for_endpoints(lambda ports: len(ports) == 1, "one replica")
    quick = {"metrics_interval_s": 0.5, "look_back_period_s": 2, "upscale_delay_s": 1}
    serving.scale_by_load(**quick, min_replicas=1, max_replicas=2, target_ongoing_requests=2)
    with serving.load(pause_s=0) as load:
        serving.wait_for_endpoints(lambda ports: len(ports) == 2, "a replica for the load")
        serving.scale_by_load(
            **quick, downscale_delay_s=1, min_replicas=1, max_replicas=2, target_ongoing_requests=90
        )
        serving.wait_for_endpoints(lambda ports: len(ports) == 1, "one replica is enough")
    assert (load.lost, load.wrong) == ([], [])


def test_rolling_the_ingress_of_the_spread_graph_loses_no_request(serving: Serving) -> None:
    fused = serving.endpoints()
    serving.spread()
    serving.deploy(2, placement="spread", timeout_ms=15_000)
    old = serving.wait_for_endpoints(
        lambda ports: len(ports) == 2 and not ports.keys() & fused.keys(), "two replicas"
    )
    serving.cluster.wait_until("RUNNING")
    _roll_and_lose_nothing(serving, old)
