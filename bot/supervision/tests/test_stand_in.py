"""A stand-in serves a quarantined name, until the name is released or the stand-in fails too often as well."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from .. import (
    Actor,
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStopped,
    Address,
    Backoff,
    ChildSpec,
    Context,
    KillRefused,
    Restart,
    Strategy,
)
from .support import WAIT_S, A, B, C, Num, Scene, fail, spec

BAD = 13
STRATEGIES = [Strategy.ONE_FOR_ONE, Strategy.REST_FOR_ONE, Strategy.ONE_FOR_ALL]


class Care:
    """What the stand-ins of a test do: `on_message[n]` runs before the message with that n is noted."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.on_started: Callable[[], object] = lambda: None
        self.on_message: dict[int, Callable[[], object]] = {}
        self.made = 0

    def actor(self, context: Context) -> "StandIn":
        self.made += 1
        return StandIn(context, self)

    def spec(self, address: Address = A, **fields: Any) -> ChildSpec:
        policy = {"max_restarts": 1, "poison_attempts": 1, "stand_in": self.actor}
        return spec(self.scene.script, address, **policy | fields)


class StandIn(Actor):
    def __init__(self, context: Context, care: Care) -> None:
        super().__init__(context)
        self._care = care

    def started(self) -> None:
        self._care.on_started()

    def handle(self, message: object) -> None:
        assert isinstance(message, Num)
        if message.n < 0:
            raise ValueError("the stand-in too")
        self._care.on_message.get(message.n, lambda: None)()
        self._care.scene.script.log.add(self.context, ("stand-in", message.n))


@pytest.fixture
def care(make_scene: Callable[..., Scene]) -> Care:
    scene = make_scene()
    scene.script.on_message[BAD] = fail(ValueError("bad"))
    return Care(scene)


def fall(care: Care, restarted: int = 2) -> Scene:
    """Have the actor fail until its stand-in serves the name."""
    scene = care.scene
    scene.tell(BAD, BAD)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "a", count=restarted)
    scene.settle()
    return scene


def quarantined(care: Care, **fields: Any) -> Scene:
    care.scene.start(care.spec(**fields))
    return fall(care)


def release(scene: Scene, restarted: int) -> None:
    assert scene.system.release(A)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "a", count=restarted)


def release_begun(scene: Scene) -> None:
    assert scene.system.release(A)
    assert any(scene.status().state != "quarantined" for _ in range(1_000_000))


def test_the_stand_in_takes_what_waits_in_order(care: Care) -> None:
    scene = care.scene.start(care.spec())
    scene.tell(BAD, BAD, 1, 2)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=2)
    scene.settle()
    assert scene.script.log.messages() == [("stand-in", 1), ("stand-in", 2)]
    assert scene.status().state == "quarantined"
    assert len(scene.recorder.of(ActorQuarantined)) == 1


def test_release_brings_the_actor_proper_back(care: Care) -> None:
    scene = quarantined(care)
    release(scene, 3)
    assert not scene.system.release(A)
    scene.tell(3)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(3)
    assert scene.status().state == "running"
    assert scene.recorder.of(ActorStopped) == []


def test_a_stand_in_that_fails_is_restarted_and_given_up_in_the_end(care: Care) -> None:
    scene = quarantined(care)
    scene.tell(-1, 4)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    scene.settle()
    assert scene.script.log.messages()[-1] == ("stand-in", 4)
    scene.tell(-2)
    event = scene.recorder.wait(ActorQuarantined, count=2)
    assert event.reason == "the stand-in too: more than 1 failures in 30000 ms, last: ValueError: the stand-in too"
    assert scene.status().state == "quarantined"
    assert not scene.system.tell(A, Num(5))
    scene.script.log.entries.clear()
    release(scene, 4)
    scene.tell(6)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(6)
    assert {type(m) for m in scene.script.log.messages()} == {Num}


def test_after_a_release_the_actors_failures_are_counted_anew(care: Care) -> None:
    """The end of the stand-in is none of them: with one failure allowed, one is still forgiven."""
    scene = quarantined(care)
    release(scene, 3)
    scene.tell(BAD, 3)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=4)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(3)
    scene.tell(BAD)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=5)
    scene.tell(4)
    scene.settle()
    assert scene.script.log.messages()[-1] == ("stand-in", 4)
    assert len(scene.recorder.of(ActorQuarantined)) == 2


def test_a_release_holds_where_no_failure_is_allowed(care: Care) -> None:
    scene = care.scene.start(care.spec(max_restarts=0))
    scene.tell(BAD)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    release(scene, 2)
    scene.tell(3)
    scene.settle()
    assert scene.script.log.messages() == [Num(3)]
    assert scene.status().state == "running"


def test_a_transient_one_comes_back_too(care: Care) -> None:
    scene = quarantined(care, restart=Restart.TRANSIENT)
    release(scene, 3)
    scene.tell(3)
    scene.settle()
    assert scene.script.log.messages() == [Num(3)]


def test_a_release_while_the_stand_in_starts(care: Care) -> None:
    scene = care.scene.start(care.spec())
    starting, go = threading.Event(), threading.Event()
    care.on_started = lambda: (starting.set(), go.wait(WAIT_S))
    scene.tell(BAD, BAD, 1, 2)
    assert starting.wait(WAIT_S)
    assert scene.status().state == "quarantined"
    release_begun(scene)
    scene.tell(3)
    go.set()
    scene.settle()
    assert scene.handled() == [1, 2, 3], "all are for the actor proper"
    scene.recorder.wait(ActorRestarted, count=2)
    assert scene.status().state == "running"
    assert care.made == 1
    assert [e.epoch for e in scene.recorder.of(ActorRestarted)] == [2, 4], "the stand-in was never up"


def test_a_release_before_the_stand_in_starts(care: Care) -> None:
    backoff = Backoff(min_ms=1_000, jitter=0)
    scene = care.scene.start(care.spec(max_restarts=0, backoff=backoff))
    scene.tell(BAD, 1)
    scene.recorder.wait(ActorQuarantined)
    assert scene.system.release(A)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    assert scene.script.log.messages() == [Num(1)]
    assert care.made == 0


def test_a_release_while_the_stand_in_hangs(care: Care) -> None:
    scene = quarantined(care, stop_deadline_ms=5_000, handler_deadline_ms=60_000)
    busy, go = threading.Event(), threading.Event()
    care.on_message[1] = lambda: (busy.set(), go.wait(WAIT_S * 2))
    scene.tell(1, 2)
    assert busy.wait(WAIT_S)
    release_begun(scene)
    assert scene.status().state == "restarting"
    with pytest.raises(KillRefused):
        scene.system.kill(A, "raise")
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    scene.settle()
    go.set()
    assert scene.handled() == [1, 2], "the actor proper takes what the stand-in had in hand"
    assert scene.status().abandoned == 1
    assert scene.status().state == "running"
    scene.tell(BAD)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=4)
    assert len(scene.recorder.of(ActorQuarantined)) == 1


@pytest.mark.parametrize("how", ["raise", "exit", "vanish", "hang"])
def test_a_kill_during_care_counts_for_nothing(care: Care, how: str) -> None:
    scene = quarantined(care, handler_deadline_ms=10_000)
    for n in range(1, 5):
        scene.system.kill(A, how)
        scene.tell(n)
        scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=2 + n)
        scene.settle()
    assert scene.script.log.messages() == [("stand-in", n) for n in range(1, 5)]
    assert len(scene.recorder.of(ActorQuarantined)) == 1


def test_a_stand_in_that_hangs_is_replaced_by_another(care: Care) -> None:
    scene = quarantined(care, handler_deadline_ms=10_000, poison_attempts=3)
    scene.script.log.entries.clear()
    go, hung = threading.Event(), threading.Event()
    care.on_message[1] = lambda: None if hung.is_set() else (hung.set(), go.wait(WAIT_S * 2))
    scene.tell(1, 2)
    assert hung.wait(WAIT_S)
    failed = scene.recorder.wait_advancing(scene.clock, ActorFailed, count=3)
    scene.settle()
    assert failed.phase == "hang"
    assert scene.script.log.messages() == [("stand-in", 1), ("stand-in", 2)]
    go.set()


def test_a_stop_during_care_works_off_what_waits(care: Care) -> None:
    scene = quarantined(care)
    busy, go = threading.Event(), threading.Event()
    care.on_message[1] = lambda: (busy.set(), go.wait(WAIT_S))
    scene.tell(1, 2, 3)
    assert busy.wait(WAIT_S)
    threading.Timer(0.05, go.set).start()
    assert scene.system.stop() == ()
    assert scene.script.log.messages() == [("stand-in", n) for n in (1, 2, 3)]
    assert scene.status().state == "stopped"
    assert scene.system.dead_letters()[2:] == ()
    assert not scene.system.release(A)


def test_a_stand_in_that_dies_at_the_stop_is_started_once_more(care: Care) -> None:
    scene = quarantined(care)
    busy, go = threading.Event(), threading.Event()
    care.on_message[1] = lambda: (busy.set(), go.wait(WAIT_S))
    scene.tell(1, -1, 2)
    assert busy.wait(WAIT_S)
    threading.Timer(0.05, go.set).start()
    assert scene.system.stop() == ()
    assert scene.script.log.messages() == [("stand-in", 1), ("stand-in", 2)]


# Groups


def in_group(care: Care, strategy: Strategy) -> Scene:
    scene = care.scene
    scene.start(spec(scene.script, B), care.spec(), spec(scene.script, C), strategy=strategy)
    return scene


def epochs(scene: Scene) -> dict[str, int]:
    return {status.name: status.epoch for status in scene.system.tree()[1:]}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_change_of_the_guard_is_a_restart_to_the_group(care: Care, strategy: Strategy) -> None:
    """The actor fails, its stand-in comes, and the actor comes back: thrice the group restarts by its strategy."""
    scene = in_group(care, strategy)
    with_it = {
        Strategy.ONE_FOR_ONE: set(),
        Strategy.REST_FOR_ONE: {"c/x"},
        Strategy.ONE_FOR_ALL: {"b", "c/x"},
    }[strategy]

    def settled(restarted: int) -> None:
        for name in {"a"} | with_it:
            scene.recorder.wait_advancing(scene.clock, ActorRestarted, name, count=restarted)
        for name in (B, A, C):
            scene.tell(restarted, to=name)
        scene.settle()
        assert epochs(scene) == {name: restarted + 1 if name in {"a"} | with_it else 1 for name in ("b", "a", "c/x")}

    scene.tell(BAD)
    settled(1)
    scene.tell(BAD)
    settled(2)
    assert scene.status().state == "quarantined"
    assert scene.system.release(A)
    settled(3)
    assert {s.state for s in scene.system.tree()} == {"running"}
    assert scene.script.log.messages() == [Num(1), ("stand-in", 2), Num(3)]
    assert scene.handled("b") == scene.handled("c/x") == [1, 2, 3]


def test_a_sibling_that_fails_brings_the_stand_in_back_not_the_actor(care: Care) -> None:
    scene = in_group(care, Strategy.ONE_FOR_ALL)
    fall(care)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "c/x", count=2)
    scene.tell(BAD, to=B)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "c/x", count=3)
    scene.tell(1)
    scene.settle()
    assert scene.script.log.messages()[-1] == ("stand-in", 1)
    assert scene.status().state == "quarantined"


def test_a_release_while_the_group_restarts(care: Care) -> None:
    """Released while it stops for a plan, it comes back with the plan as the actor proper; nobody is left out."""
    scene = in_group(care, Strategy.ONE_FOR_ALL)
    fall(care)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "c/x", count=2)
    busy, go = threading.Event(), threading.Event()
    care.on_message[1] = lambda: (busy.set(), go.wait(WAIT_S))
    scene.tell(1, 2)
    assert busy.wait(WAIT_S)
    scene.tell(BAD, to=B)
    scene.recorder.wait(ActorFailed, "b")
    assert scene.system.release(A)
    go.set()
    for name in ("b", "a", "c/x"):
        scene.recorder.wait_advancing(scene.clock, ActorRestarted, name, count=3)
    for name in (B, A, C):
        scene.tell(7, to=name)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(7)
    assert [m for m in scene.script.log.messages() if m in (Num(2), ("stand-in", 2))] != []
    assert {s.state for s in scene.system.tree()} == {"running"}


def test_a_release_while_the_stand_in_starts_within_a_plan(care: Care) -> None:
    scene = in_group(care, Strategy.ONE_FOR_ALL)
    starting, go = threading.Event(), threading.Event()
    care.on_started = lambda: (starting.set(), go.wait(WAIT_S))
    scene.tell(BAD, BAD, 1)
    for _ in range(2_000):
        scene.clock.advance(1)
        if starting.wait(0.005):
            break
    release_begun(scene)
    go.set()
    for name in ("b", "a", "c/x"):
        scene.recorder.wait_advancing(scene.clock, ActorRestarted, name, count=2)
        scene.tell(7, to=Address.parse(name))
    scene.settle()
    scene.recorder.wait(ActorRestarted, "c/x", count=2)
    assert scene.handled() == [1, 7]
    assert {s.state for s in scene.system.tree()} == {"running"}


def test_a_shut_name_leaves_its_group_alone_until_released(care: Care) -> None:
    scene = in_group(care, Strategy.REST_FOR_ONE)
    fall(care)
    care.on_message[5] = lambda: 1 / 0
    scene.tell(5)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "c/x", count=3)
    scene.tell(5)
    scene.recorder.wait(ActorQuarantined, count=2)
    scene.tell(1, to=C)
    scene.settle()
    assert scene.handled("c/x") == [1]
    release(scene, 4)
    scene.tell(6)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(6)
