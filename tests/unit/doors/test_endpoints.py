"""Live direct ports: replicas announce themselves in a registry, and drop those that died."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from kirana.doors import endpoints as module
from kirana.doors.endpoints import REMOVED_AFTER_S, STALE_S, Endpoint, Endpoints
from tests.clock import Clock
from tests.support import Shop
from tests.unit.edge.conftest import client_of
from tests.waiting import wait_until

A = Endpoint("a", "http://10.0.0.1:20000")
B = Endpoint("b", "http://10.0.0.2:20000")
C = Endpoint("c", "http://10.0.0.3:20001")


class Notes(dict[str, bytes]):
    """A registry in this process, which counts its reads and raises `error` if it is set."""

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


@pytest.fixture
def registry() -> Notes:
    return Notes()


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@asynccontextmanager
async def following(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncio.Task[None]]:
    """Run `endpoints.follow()` as a task, with almost no time between two beats."""
    monkeypatch.setattr(module, "BEAT_S", 0.001)
    task = asyncio.create_task(endpoints.follow())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class TestOneReplica:
    async def test_no_endpoint_is_live_before_it_is_announced(self, registry: Notes) -> None:
        assert Endpoints().live() == []
        assert Endpoints(registry).live() == []

    async def test_without_a_registry_a_replica_lists_only_itself(self) -> None:
        replica = Endpoints()
        await replica.announce(A)
        assert replica.live() == [A]
        await asyncio.wait_for(replica.follow(), 10)
        await replica.withdraw()
        assert replica.live() == []

    async def test_withdrawing_before_announcing_does_not_call_the_registry(
        self, registry: Notes
    ) -> None:
        registry.error = OSError("the registry must not be called")
        await Endpoints(registry).withdraw()

    async def test_a_replica_lists_itself_once_and_never_as_stale(
        self, registry: Notes, clock: Clock
    ) -> None:
        replica = Endpoints(registry, clock=clock)
        await replica.announce(A)
        await replica.announce(A)
        clock.now += 10 * REMOVED_AFTER_S
        assert replica.live() == [A]


class TestSeveralReplicas:
    async def test_two_replicas_list_themselves_first_and_then_each_other(
        self, registry: Notes
    ) -> None:
        replica, other = Endpoints(registry), Endpoints(registry)
        await replica.announce(A)
        await other.announce(B)
        await replica.announce(A)
        assert replica.live() == [A, B]
        assert other.live() == [B, A]

    async def test_other_replicas_are_listed_by_name(self, registry: Notes) -> None:
        for own in (C, A, B):
            await Endpoints(registry).announce(own)
        last = Endpoints(registry)
        await last.announce(Endpoint("aa", "http://x"))
        assert [endpoint.replica for endpoint in last.live()] == ["aa", "a", "b", "c"]

    async def test_replicas_that_follow_see_others_announce_and_withdraw(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica, other = Endpoints(registry), Endpoints(registry)
        await replica.announce(A)
        async with following(replica, monkeypatch), following(other, monkeypatch):
            await other.announce(B)
            await wait_until(lambda: replica.live() == [A, B])
            assert other.live() == [B, A]
            await other.withdraw()
            await wait_until(lambda: replica.live() == [A])
            await wait_until(lambda: other.live() == [A])

    async def test_a_beat_changes_the_note(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica = Endpoints(registry)
        await replica.announce(A)
        before = registry["a"]
        async with following(replica, monkeypatch):
            await wait_until(lambda: registry["a"] != before)
        assert json.loads(registry["a"])["url"] == A.url

    async def test_a_replica_that_moved_is_listed_at_its_new_url(self, registry: Notes) -> None:
        replica = Endpoints(registry)
        await Endpoints(registry).announce(B)
        await replica.announce(A)
        moved = Endpoint("b", "http://10.0.0.9:1")
        await Endpoints(registry).announce(moved)
        await replica.announce(A)
        assert replica.live() == [A, moved]


class TestDeadReplicas:
    async def test_a_dead_replica_is_dropped_when_its_note_is_stale(
        self, registry: Notes, clock: Clock
    ) -> None:
        replica = Endpoints(registry, clock=clock)
        await Endpoints(registry).announce(B)
        await replica.announce(A)
        clock.now += STALE_S - 0.01
        await replica.announce(A)
        assert replica.live() == [A, B]
        clock.now += 0.02
        assert replica.live() == [A]
        await replica.announce(A)
        assert replica.live() == [A]

    async def test_a_replica_that_beats_stays_listed(self, registry: Notes, clock: Clock) -> None:
        replica, other = Endpoints(registry, clock=clock), Endpoints(registry)
        for _ in range(100):
            await other.announce(B)
            await replica.announce(A)
            clock.now += STALE_S - 0.01
            assert replica.live() == [A, B]

    async def test_a_replica_that_beats_again_is_listed_again(
        self, registry: Notes, clock: Clock
    ) -> None:
        replica, other = Endpoints(registry, clock=clock), Endpoints(registry)
        await other.announce(B)
        await replica.announce(A)
        clock.now += STALE_S + 1
        assert replica.live() == [A]
        await other.announce(B)
        await replica.announce(A)
        assert replica.live() == [A, B]

    async def test_clocks_of_two_machines_are_not_compared(self, registry: Notes) -> None:
        replica, other = (
            Endpoints(registry, clock=Clock(1e9)),
            Endpoints(registry, clock=Clock(5.0)),
        )
        await replica.announce(A)
        await other.announce(B)
        await replica.announce(A)
        assert (replica.live(), other.live()) == ([A, B], [B, A])

    async def test_the_note_of_a_dead_replica_is_removed_in_the_end(
        self, registry: Notes, clock: Clock
    ) -> None:
        replica, other = Endpoints(registry, clock=clock), Endpoints(registry)
        await other.announce(B)
        await replica.announce(A)
        clock.now += REMOVED_AFTER_S - 1
        await replica.announce(A)
        assert set(registry) == {"a", "b"}
        clock.now += 2
        await replica.announce(A)
        assert set(registry) == {"a"}
        await other.announce(B)
        await replica.announce(A)
        assert replica.live() == [A, B]


class SlowNotes(Notes):
    """A registry in which the method named `slow` waits until `released` is set."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self._slow = slow
        self.reached, self.released = threading.Event(), threading.Event()
        self.released.set()

    def _wait(self, name: str) -> None:
        if name == self._slow and not self.released.is_set():
            self.reached.set()
            assert self.released.wait(10)

    def write(self, name: str, note: bytes) -> None:
        self._wait("write")
        super().write(name, note)

    def remove(self, name: str) -> None:
        self._wait("remove")
        super().remove(name)

    def read(self) -> dict[str, bytes]:
        notes = super().read()
        self._wait("read")
        return notes


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[SlowNotes]:
    notes = SlowNotes(request.param)
    yield notes
    notes.released.set()


class TestWithdrawal:
    async def test_withdrawing_removes_the_note_and_others_see_it_at_their_next_read(
        self, registry: Notes
    ) -> None:
        replica, other = Endpoints(registry), Endpoints(registry)
        await other.announce(B)
        await replica.announce(A)
        await other.withdraw()
        assert other.live() == []
        assert set(registry) == {"a"}
        await replica.announce(A)
        assert replica.live() == [A]

    async def test_withdrawing_again_is_a_no_op(self, registry: Notes) -> None:
        replica = Endpoints(registry)
        await replica.announce(A)
        await replica.withdraw()
        await replica.withdraw()
        assert registry == {}

    async def test_a_replica_that_withdrew_still_lists_the_others(self, registry: Notes) -> None:
        replica = Endpoints(registry)
        await Endpoints(registry).announce(B)
        await replica.announce(A)
        await replica.withdraw()
        assert replica.live() == [B]

    async def test_following_after_a_withdrawal_writes_no_note(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica = Endpoints(registry)
        await replica.announce(A)
        await replica.withdraw()
        async with following(replica, monkeypatch):
            before = registry.reads
            await wait_until(lambda: registry.reads > before + 3)
        assert registry == {}

    @pytest.mark.parametrize("slow", ["write", "read"], indirect=True)
    async def test_a_beat_in_progress_does_not_restore_a_withdrawn_note(
        self, slow: SlowNotes
    ) -> None:
        replica = Endpoints(slow)
        await replica.announce(A)
        slow.released.clear()
        beat = asyncio.create_task(replica.announce(A))
        await asyncio.to_thread(slow.reached.wait, 10)
        await replica.withdraw()
        slow.released.set()
        await beat
        assert slow == {}
        assert replica.live() == []

    @pytest.mark.parametrize("slow", ["remove"], indirect=True)
    async def test_a_replica_does_not_list_itself_while_it_withdraws(
        self, slow: SlowNotes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica = Endpoints(slow)
        await replica.announce(A)
        slow.released.clear()
        withdrawing = asyncio.create_task(replica.withdraw())
        await asyncio.to_thread(slow.reached.wait, 10)
        before = slow.reads
        async with following(replica, monkeypatch):
            await wait_until(lambda: slow.reads > before + 2)
            assert replica.live() == []
        slow.released.set()
        await withdrawing
        assert replica.live() == []


GARBAGE = {
    "an empty note": b"",
    "not JSON": b"nonsense",
    "not UTF-8": b"\xff\xfe",
    "not an object": b"[]",
    "no fields": b"{}",
    "wrong types": b'{"url": 5, "beat": "one"}',
}


class TestFailures:
    async def test_an_unreachable_registry_is_logged_and_tried_again(
        self, registry: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        replica, other = Endpoints(registry), Endpoints(registry)
        await replica.announce(A)
        async with following(replica, monkeypatch) as task:
            await other.announce(B)
            await wait_until(lambda: replica.live() == [A, B])
            registry.error = ConnectionError("the registry is down")
            await wait_until(lambda: "the registry is down" in caplog.text)
            assert replica.live() == [A, B]
            assert not task.done()
            registry.error = None
            await Endpoints(registry).announce(C)
            await wait_until(lambda: C in replica.live())

    async def test_an_unreachable_registry_leaves_the_list_unchanged(
        self,
        registry: Notes,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Meanwhile no note can change, so an unchanged note does not show that a replica died."""
        replica = Endpoints(registry, clock=clock)
        await Endpoints(registry).announce(B)
        await replica.announce(A)
        registry.error = ConnectionError("the registry is down")
        async with following(replica, monkeypatch):
            await wait_until(lambda: "the registry is down" in caplog.text)
            clock.now += STALE_S + 1
            caplog.clear()
            await wait_until(lambda: "the registry is down" in caplog.text)
        assert replica.live() == [A, B]

    async def test_a_replica_can_withdraw_without_reaching_the_registry(
        self, registry: Notes
    ) -> None:
        replica = Endpoints(registry)
        await replica.announce(A)
        registry.error = ConnectionError("the registry is down")
        await asyncio.gather(replica.withdraw(), return_exceptions=True)
        assert replica.live() == []

    @pytest.mark.parametrize("note", GARBAGE.values(), ids=GARBAGE)
    async def test_an_invalid_note_is_ignored(self, registry: Notes, note: bytes) -> None:
        registry["aa"] = note
        registry["b"] = json.dumps({"url": B.url, "beat": 1}).encode()
        registry["zz"] = note
        replica = Endpoints(registry)
        await replica.announce(A)
        assert replica.live() == [A, B]

    async def test_a_note_may_have_unknown_fields(self, registry: Notes) -> None:
        """During an upgrade, replicas of two versions of Kirana share a registry."""
        registry["b"] = json.dumps({"url": B.url, "beat": 1, "zone": "eu"}).encode()
        replica = Endpoints(registry)
        await replica.announce(A)
        assert replica.live() == [A, B]


class TestRoute:
    async def test_the_route_lists_the_live_endpoints(self, shop: Shop, registry: Notes) -> None:
        replica = Endpoints(registry)
        edge = await shop.edge(endpoints=replica)
        async with client_of(edge) as client:
            assert (await client.get("/v1/endpoints")).json() == {"endpoints": []}
            await Endpoints(registry).announce(B)
            await replica.announce(A)
            response = await client.get("/v1/endpoints")
        assert response.status_code == 200
        assert response.json() == {
            "endpoints": [
                {"replica": "a", "url": "http://10.0.0.1:20000"},
                {"replica": "b", "url": "http://10.0.0.2:20000"},
            ]
        }

    async def test_an_edge_without_direct_ports_lists_none(self, shop: Shop) -> None:
        async with client_of(await shop.edge()) as client:
            assert (await client.get("/v1/endpoints")).json() == {"endpoints": []}
