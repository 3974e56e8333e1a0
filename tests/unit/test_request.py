"""The `RequestContext`: its deadline, clock and ids, and its copy after pickling."""

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


def after_pickling(context: RequestContext) -> RequestContext:
    arrived: RequestContext = pickle.loads(pickle.dumps(context, pickle.HIGHEST_PROTOCOL))
    return arrived


def test_everything_but_the_deadline_survives_pickling_unchanged() -> None:
    context = begin()
    context.ledger.retries = 2
    context.ledger.hedges = 1
    arrived = after_pickling(context)
    assert arrived == context
    assert arrived.ledger == context.ledger


def test_pickling_keeps_the_seconds_left_and_not_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(begin(timeout_s=5.0))
    now = time.monotonic()
    # The receiver is another machine, which has been up for longer.
    monkeypatch.setattr(time, "monotonic", lambda: now + 1e6)
    assert 4.0 < pickle.loads(data).left_s() <= 5.0


def test_pickling_a_request_without_a_deadline_adds_none() -> None:
    assert after_pickling(begin()).left_s() == math.inf
    begin().require_time("features")


def test_a_passed_deadline_is_reported_with_the_part() -> None:
    with pytest.raises(DeadlineExceeded, match=r"features: the deadline passed \d+ ms ago"):
        begin(timeout_s=-0.25).require_time("features")


def test_within_shortens_a_deadline_and_never_extends_it() -> None:
    context = begin(timeout_s=5.0)
    assert context.within(1.0).left_s() <= 1.0
    assert context.within(60.0).deadline == context.deadline
    context.within(1.0).ledger.retries += 1
    assert context.ledger.retries == 1


def test_now_ms_is_the_time_when_the_request_began_and_survives_pickling() -> None:
    before = time.time_ns() // 1_000_000
    context = RequestContext.begin(REVISION)
    assert before <= context.now_ms <= time.time_ns() // 1_000_000
    assert after_pickling(context).now_ms == context.now_ms


def test_every_request_has_a_different_id() -> None:
    assert len({new_id() for _ in range(1_000)}) == 1_000
    assert RequestContext.begin(REVISION).id != RequestContext.begin(REVISION).id
