"""What travels with a request, and what becomes of it on the way."""

from __future__ import annotations

import math
import pickle
import time

import pytest

from kirana.errors import DeadlineExceeded
from kirana.request import RequestContext, new_id
from kirana.revision import Revision

REVISION = Revision("shop", 3)


def begin(timeout_s: float = math.inf) -> RequestContext:
    return RequestContext.begin(
        REVISION,
        timeout_s=timeout_s,
        now_ms=1_700_000_000_000,
        id="a request",
        priority="writer",
        traceparent="00-1-2-01",
        caller="storefront",
    )


def sent(context: RequestContext) -> RequestContext:
    arrived: RequestContext = pickle.loads(pickle.dumps(context, pickle.HIGHEST_PROTOCOL))
    return arrived


def test_all_but_the_deadline_arrives_as_it_was_sent() -> None:
    context = begin()
    context.ledger.retries = 2
    context.ledger.hedges = 1
    arrived = sent(context)
    assert arrived == context
    assert arrived.ledger == context.ledger


def test_the_time_that_is_left_travels_and_not_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(begin(timeout_s=5.0))
    here = time.monotonic()
    # the far end is another machine, which was started long before
    monkeypatch.setattr(time, "monotonic", lambda: here + 1e6)
    assert 4.0 < pickle.loads(data).left_s() <= 5.0


def test_a_request_without_a_deadline_stays_without_one() -> None:
    assert sent(begin()).left_s() == math.inf
    begin().require_time("features")


def test_a_part_that_is_late_says_so() -> None:
    with pytest.raises(DeadlineExceeded, match=r"features: the deadline passed \d+ ms ago"):
        begin(timeout_s=-0.25).require_time("features")


def test_a_narrower_deadline_counts_and_a_wider_one_does_not() -> None:
    context = begin(timeout_s=5.0)
    assert context.within(1.0).left_s() <= 1.0
    assert context.within(60.0).deadline == context.deadline
    context.within(1.0).ledger.retries += 1
    assert context.ledger.retries == 1


def test_the_clock_is_read_once() -> None:
    before = time.time_ns() // 1_000_000
    context = RequestContext.begin(REVISION)
    assert before <= context.now_ms <= time.time_ns() // 1_000_000
    assert sent(context).now_ms == context.now_ms


def test_no_two_requests_have_one_id() -> None:
    assert len({new_id() for _ in range(1_000)}) == 1_000
    assert RequestContext.begin(REVISION).id != RequestContext.begin(REVISION).id
