"""The live direct ports: replicas that see each other in a registry, and miss who died."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from kirana.doors import endpoints as module
from kirana.doors.endpoints import FORGOTTEN_S, STALE_S, Endpoint, Endpoints
from tests.support import Shop
from tests.unit.edge.conftest import client_of
from tests.waiting import wait_until

A = Endpoint("a", "http://10.0.0.1:20000")
B = Endpoint("b", "http://10.0.0.2:20000")
C = Endpoint("c", "http://10.0.0.3:20001")


class Notes(dict[str, bytes]):
    """A registry in this process; counts how often it was read."""

    reads = 0
    error: Exception | None = None

    def write(self, name: str, note: bytes) -> None:
        self._fail()
        self[name] = note

    def remove(self, name: str) -> None:
        self._fail()
        self.pop(name, None)

    def read(self) -> dict[str, bytes]:
        self.reads += 1
        self._fail()
        return dict(self)

    def _fail(self) -> None:
        if self.error:
            raise self.error


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry() -> Notes:
    return Notes()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def following(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncio.Task[None]]:
    """Let it follow, with no time between the beats."""
    monkeypatch.setattr(module, "BEAT_S", 0.001)
    task = asyncio.create_task(endpoints.follow())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class TestAlone:
    async def test_nothing_is_live_before_it_was_announced(self, registry: Notes) -> None:
        assert Endpoints().live() == []
        assert Endpoints(registry).live() == []

    async def test_without_a_board_a_replica_knows_itself(self) -> None:
        alone = Endpoints()
        await alone.announce(A)
        assert alone.live() == [A]
        await asyncio.wait_for(alone.follow(), 10)
        await alone.withdraw()
        assert alone.live() == []

    async def test_who_has_nothing_to_withdraw_leaves_the_registry_alone(
        self, registry: Notes
    ) -> None:
        registry.error = OSError("nobody may ask")
        await Endpoints(registry).withdraw()

    async def test_an_own_endpoint_is_listed_once_and_never_stale(
        self, registry: Notes, clock: Clock
    ) -> None:
        alone = Endpoints(registry, clock=clock)
        await alone.announce(A)
        await alone.announce(A)
        clock.now += 10 * FORGOTTEN_S
        assert alone.live() == [A]


class TestTogether:
    async def test_two_see_each_other_and_each_itself_first(self, registry: Notes) -> None:
        one, other = Endpoints(registry), Endpoints(registry)
        await one.announce(A)
        await other.announce(B)
        await one.announce(A)
        assert one.live() == [A, B]
        assert other.live() == [B, A]

    async def test_others_stand_in_the_order_of_their_names(self, registry: Notes) -> None:
        for own in (C, A, B):
            await Endpoints(registry).announce(own)
        last = Endpoints(registry)
        await last.announce(Endpoint("aa", "http://x"))
        assert [each.replica for each in last.live()] == ["aa", "a", "b", "c"]

    async def test_who_follows_sees_who_comes_and_who_goes(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = Endpoints(registry), Endpoints(registry)
        await one.announce(A)
        async with following(one, monkeypatch), following(other, monkeypatch):
            await other.announce(B)
            await wait_until(lambda: one.live() == [A, B])
            assert other.live() == [B, A]
            await other.withdraw()
            await wait_until(lambda: one.live() == [A])
            await wait_until(lambda: other.live() == [A])

    async def test_a_beat_changes_the_note(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = Endpoints(registry)
        await one.announce(A)
        before = registry["a"]
        async with following(one, monkeypatch):
            await wait_until(lambda: registry["a"] != before)
        assert json.loads(registry["a"])["url"] == A.url

    async def test_a_replica_that_moved_is_seen_where_it_is(self, registry: Notes) -> None:
        one = Endpoints(registry)
        await Endpoints(registry).announce(B)
        await one.announce(A)
        moved = Endpoint("b", "http://10.0.0.9:1")
        await Endpoints(registry).announce(moved)
        await one.announce(A)
        assert one.live() == [A, moved]


class TestDead:
    async def test_who_died_vanishes_when_its_note_is_stale(
        self, registry: Notes, clock: Clock
    ) -> None:
        one = Endpoints(registry, clock=clock)
        await Endpoints(registry).announce(B)
        await one.announce(A)
        clock.now += STALE_S - 0.01
        await one.announce(A)
        assert one.live() == [A, B]
        clock.now += 0.02
        assert one.live() == [A]
        await one.announce(A)
        assert one.live() == [A]

    async def test_who_beats_stays(self, registry: Notes, clock: Clock) -> None:
        one, other = Endpoints(registry, clock=clock), Endpoints(registry)
        for _ in range(100):
            await other.announce(B)
            await one.announce(A)
            clock.now += STALE_S - 0.01
            assert one.live() == [A, B]

    async def test_who_beats_again_is_live_again(self, registry: Notes, clock: Clock) -> None:
        one, other = Endpoints(registry, clock=clock), Endpoints(registry)
        await other.announce(B)
        await one.announce(A)
        clock.now += STALE_S + 1
        assert one.live() == [A]
        await other.announce(B)
        await one.announce(A)
        assert one.live() == [A, B]

    async def test_clocks_of_two_machines_are_not_compared(self, registry: Notes) -> None:
        one, other = Endpoints(registry, clock=Clock(1e9)), Endpoints(registry, clock=Clock(5.0))
        await one.announce(A)
        await other.announce(B)
        await one.announce(A)
        assert (one.live(), other.live()) == ([A, B], [B, A])

    async def test_the_note_of_the_dead_is_swept_off_in_the_end(
        self, registry: Notes, clock: Clock
    ) -> None:
        one, other = Endpoints(registry, clock=clock), Endpoints(registry)
        await other.announce(B)
        await one.announce(A)
        clock.now += FORGOTTEN_S - 1
        await one.announce(A)
        assert set(registry) == {"a", "b"}
        clock.now += 2
        await one.announce(A)
        assert set(registry) == {"a"}
        await other.announce(B)
        await one.announce(A)
        assert one.live() == [A, B]


class SlowNotes(Notes):
    """A registry whose calls of one name wait until they are let go on."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self._slow = slow
        self.reached, self.going_on = threading.Event(), threading.Event()
        self.going_on.set()

    def _wait(self, name: str) -> None:
        if name == self._slow and not self.going_on.is_set():
            self.reached.set()
            assert self.going_on.wait(10)

    def write(self, name: str, note: bytes) -> None:
        self._wait("write")
        super().write(name, note)

    def remove(self, name: str) -> None:
        self._wait("remove")
        super().remove(name)

    def read(self) -> dict[str, bytes]:
        found = super().read()
        self._wait("read")
        return found


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[SlowNotes]:
    made = SlowNotes(request.param)
    yield made
    made.going_on.set()


class TestWithdrawn:
    async def test_a_note_is_taken_off_and_others_see_it_at_once(self, registry: Notes) -> None:
        one, other = Endpoints(registry), Endpoints(registry)
        await other.announce(B)
        await one.announce(A)
        await other.withdraw()
        assert other.live() == []
        assert set(registry) == {"a"}
        await one.announce(A)
        assert one.live() == [A]

    async def test_withdrawing_again_is_a_no_op(self, registry: Notes) -> None:
        one = Endpoints(registry)
        await one.announce(A)
        await one.withdraw()
        await one.withdraw()
        assert registry == {}

    async def test_who_withdrew_still_sees_the_others(self, registry: Notes) -> None:
        one = Endpoints(registry)
        await Endpoints(registry).announce(B)
        await one.announce(A)
        await one.withdraw()
        assert one.live() == [B]

    async def test_following_writes_no_note_again(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = Endpoints(registry)
        await one.announce(A)
        await one.withdraw()
        async with following(one, monkeypatch):
            before = registry.reads
            await wait_until(lambda: registry.reads > before + 3)
        assert registry == {}

    @pytest.mark.parametrize("slow", ["write", "read"], indirect=True)
    async def test_a_beat_that_was_under_way_does_not_bring_it_back(self, slow: SlowNotes) -> None:
        one = Endpoints(slow)
        await one.announce(A)
        slow.going_on.clear()
        beat = asyncio.create_task(one.announce(A))
        await asyncio.to_thread(slow.reached.wait, 10)
        await one.withdraw()
        slow.going_on.set()
        await beat
        assert slow == {}
        assert one.live() == []

    @pytest.mark.parametrize("slow", ["remove"], indirect=True)
    async def test_who_is_withdrawing_does_not_take_its_own_note_for_anothers(
        self, slow: SlowNotes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = Endpoints(slow)
        await one.announce(A)
        slow.going_on.clear()
        withdrawing = asyncio.create_task(one.withdraw())
        await asyncio.to_thread(slow.reached.wait, 10)
        before = slow.reads
        async with following(one, monkeypatch):
            await wait_until(lambda: slow.reads > before + 2)
            assert one.live() == []
        slow.going_on.set()
        await withdrawing
        assert one.live() == []


GARBAGE = {
    "nothing": b"",
    "no JSON": b"nonsense",
    "no UTF-8": b"\xff\xfe",
    "no object": b"[]",
    "no fields": b"{}",
    "other types": b'{"url": 5, "beat": "one"}',
}


class TestTrouble:
    async def test_a_board_that_is_away_is_logged_and_asked_again(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other = Endpoints(registry), Endpoints(registry)
        await one.announce(A)
        async with following(one, monkeypatch) as task:
            await other.announce(B)
            await wait_until(lambda: one.live() == [A, B])
            registry.error = ConnectionError("the registry is away")
            await wait_until(lambda: "the registry is away" in caplog.text)
            assert one.live() == [A, B]
            assert not task.done()
            registry.error = None
            await Endpoints(registry).announce(C)
            await wait_until(lambda: C in one.live())

    async def test_a_board_that_is_away_leaves_what_was_last_seen(
        self,
        registry: Notes,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nobody can beat then: that a note does not change says nothing about its replica."""
        one = Endpoints(registry, clock=clock)
        await Endpoints(registry).announce(B)
        await one.announce(A)
        registry.error = ConnectionError("the registry is away")
        async with following(one, monkeypatch):
            await wait_until(lambda: "the registry is away" in caplog.text)
            clock.now += STALE_S + 1
            caplog.clear()
            await wait_until(lambda: "the registry is away" in caplog.text)
        assert one.live() == [A, B]

    async def test_who_can_not_reach_the_board_is_withdrawn_all_the_same(
        self, registry: Notes
    ) -> None:
        one = Endpoints(registry)
        await one.announce(A)
        registry.error = ConnectionError("the registry is away")
        await asyncio.gather(one.withdraw(), return_exceptions=True)
        assert one.live() == []

    @pytest.mark.parametrize("note", GARBAGE.values(), ids=GARBAGE)
    async def test_a_note_that_is_none_hides_no_other(self, registry: Notes, note: bytes) -> None:
        registry["aa"] = note
        registry["b"] = json.dumps({"url": B.url, "beat": 1}).encode()
        registry["zz"] = note
        one = Endpoints(registry)
        await one.announce(A)
        assert one.live() == [A, B]

    async def test_a_note_may_say_more_than_is_known_here(self, registry: Notes) -> None:
        """Two versions of Kirana stand side by side while one replaces the other."""
        registry["b"] = json.dumps({"url": B.url, "beat": 1, "zone": "eu"}).encode()
        one = Endpoints(registry)
        await one.announce(A)
        assert one.live() == [A, B]


class TestRoute:
    async def test_the_live_ones_are_answered(self, shop: Shop, registry: Notes) -> None:
        one = Endpoints(registry)
        edge = await shop.edge(endpoints=one)
        async with client_of(edge) as client:
            assert (await client.get("/v1/endpoints")).json() == {"endpoints": []}
            await Endpoints(registry).announce(B)
            await one.announce(A)
            response = await client.get("/v1/endpoints")
        assert response.status_code == 200
        assert response.json() == {
            "endpoints": [
                {"replica": "a", "url": "http://10.0.0.1:20000"},
                {"replica": "b", "url": "http://10.0.0.2:20000"},
            ]
        }

    async def test_an_edge_without_direct_ports_has_none(self, shop: Shop) -> None:
        async with client_of(await shop.edge()) as client:
            assert (await client.get("/v1/endpoints")).json() == {"endpoints": []}
