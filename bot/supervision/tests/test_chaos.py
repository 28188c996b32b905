"""Kills by command: each kind ends as the real thing, costs nothing of the policy, and loses nothing."""

import random
import threading
from collections.abc import Callable
from functools import partial

import pytest

from .. import (
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    Address,
    Backoff,
    KillRefused,
    SystemClock,
)
from .support import WAIT_S, A, B, Num, Scene, fail, once, spec

KINDS = ["raise", "exit", "hang", "vanish"]


@pytest.mark.parametrize(
    ("how", "phase", "text"),
    [
        ("raise", "handle", "ChaosKill: raise"),
        ("exit", "handle", "SystemExit: chaos"),
        ("hang", "hang", "hung: in one handler for"),
        ("vanish", "vanish", "thread a vanished"),
    ],
)
def test_each_kind_fails_the_next_message_and_it_is_handled_by_the_next(
    scene: Scene, how: str, phase: str, text: str
) -> None:
    scene.start(spec(scene.script, handler_deadline_ms=10_000), spec(scene.script, B))
    scene.tell(1)
    scene.settle()
    scene.system.kill(A, how)
    scene.tell(2, 3)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    assert [e[1:] for e in scene.script.log.entries] == [(1, Num(1)), (2, Num(2)), (2, Num(3))]
    failed = scene.recorder.of(ActorFailed)
    assert [(f.name, f.phase) for f in failed] == [("a", phase)]
    assert failed[0].error.startswith(text)
    assert scene.status("b").epoch == 1


@pytest.mark.parametrize("how", KINDS)
def test_kills_count_towards_nothing(scene: Scene, how: str) -> None:
    # A wait that grew would be a hundred seconds at least: the clock runs on while a loaded machine is slow to restart.
    backoff = Backoff(min_ms=100, max_ms=10_000_000, factor=1_000, jitter=0)
    scene.start(spec(scene.script, handler_deadline_ms=5_000, max_restarts=1, poison_attempts=1, backoff=backoff))
    for n in range(1, 6):
        scene.system.kill(A, how)
        scene.tell(n)
        restarted = scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=n)
        assert restarted.downtime_ms < 100_000, "nor does the wait grow"
        scene.settle()
    assert scene.handled() == [1, 2, 3, 4, 5]
    assert scene.recorder.of(ActorQuarantined) == []
    assert scene.system.dead_letters() == ()


def test_a_kill_is_refused_where_it_makes_no_sense(scene: Scene) -> None:
    scene.script.on_message[1] = fail(ValueError("x"))
    scene.start(spec(scene.script, backoff=Backoff(min_ms=60_000, max_ms=60_000)))
    with pytest.raises(KillRefused, match="no actor is named nobody/x"):
        scene.system.kill(Address("nobody", "x"), "raise")
    for how in ("softly", "stop", "leave"):
        with pytest.raises(ValueError, match=how):
            scene.system.kill(A, how)
    scene.system.kill(A, "raise")
    with pytest.raises(KillRefused, match="pending"):
        scene.system.kill(A, "exit")
    scene.tell(1)
    scene.recorder.wait(ActorFailed)
    with pytest.raises(KillRefused, match="not running"):
        scene.system.kill(A, "raise")


def test_an_ask_that_is_killed_is_answered_by_the_next(scene: Scene) -> None:
    scene.script.on_message[1] = lambda actor: actor.context.epoch
    scene.start()
    scene.system.kill(A, "raise")
    assert scene.system.ask(A, Num(1), WAIT_S) == 2


def test_a_clock_whose_timers_ring_no_more_is_seen(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(supervisor_deadline_ms=1_000)
    scene.start()
    armed: list[object] = []
    scene.clock.call_later = lambda delay_ms, action: armed.append(action)  # type: ignore[method-assign,assignment]
    scene.clock.advance(250)  # the last one that rings
    assert armed
    scene.clock.advance(1_249)
    assert not scene.escalation.wait(0.3), "a clock that stands still is not late"
    scene.clock.advance(1)
    assert scene.escalation.wait(WAIT_S)
    assert scene.escalated == ["the clock's timers have not rung for 1250 ms"]


def test_a_clock_that_is_late_now_and_then_is_forgiven(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(supervisor_deadline_ms=20_000)
    scene.start()
    real = scene.clock.call_later
    for _ in range(2):
        armed: list[Callable[[], None]] = []
        scene.clock.call_later = lambda delay_ms, action, armed=armed: armed.append(action)  # type: ignore[method-assign,assignment,misc]
        scene.clock.advance(50_000)
        assert not scene.escalation.wait(0.5)
        scene.clock.call_later = real  # type: ignore[method-assign]
        armed[0]()
        assert not scene.escalation.wait(0.5)


def test_an_action_that_raises_does_not_end_the_machines_clock(caplog: pytest.LogCaptureFixture) -> None:
    clock, rang = SystemClock(), threading.Event()
    for error in (ValueError("x"), SystemExit(1)):
        clock.call_later(0, partial(_raise, error))
    clock.call_later(1, rang.set)
    assert rang.wait(WAIT_S)
    assert [r.getMessage() for r in caplog.records].count("an action of a timer failed") == 2


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "the supervisor ended: ChaosKill: raise"),
        ("exit", "the supervisor ended: SystemExit: chaos"),
        ("hang", "the supervisor hangs for"),
        ("vanish", "the supervisor's thread vanished"),
    ],
)
def test_the_supervisor_can_be_killed_and_the_guardian_sees_it(
    make_scene: Callable[..., Scene], how: str, reason: str
) -> None:
    scene = make_scene(supervisor_deadline_ms=1_000)
    scene.start()
    scene.system.kill(scene.system_name, how)
    with pytest.raises(KillRefused, match="pending"):
        scene.system.kill(scene.system_name, how)
    scene.clock.advance(250)
    assert scene.escalation.wait(WAIT_S)
    assert len(scene.escalated) == 1
    assert scene.escalated[0].startswith(reason)
    scene.tell(1)
    scene.settle()
    assert scene.handled() == [1], "the actors work on until they are stopped"


def in_their_epochs(scene: Scene, name: str) -> list[int]:
    """Return what was handled, without what an incarnation whose epoch was over by then noted late."""
    handled, newest = [], 0
    for who, epoch, message in scene.script.log.entries:
        if who == name and epoch >= newest:
            handled.append(message.n)
            newest = epoch
    return handled


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_kills_loses_and_reorders_nothing(make_scene: Callable[..., Scene], seed: int) -> None:
    """a -> b, each killed again and again; b sees all that a was told, in order, a killed message at most again."""
    rng = random.Random(seed)
    scene = make_scene(real=True, check_ms=10)
    for n in range(400):
        scene.script.on_message[n] = lambda actor, n=n: (
            actor.context.tell(B, Num(1_000 + n)) if actor.context.address == A else None
        )
    # Hangs are found soon, so that one or the other handler of a busy machine is taken for one: it counts for nothing
    # here, but for a message that is tried again.
    policy = {"handler_deadline_ms": 100, "max_restarts": 10_000, "poison_attempts": 100}
    scene.start(*(spec(scene.script, name, **policy) for name in (A, B)))
    kills = hangs = 0
    for n in range(400):
        if n % 10 == 0:
            name, how = rng.choice([A, B]), rng.choice(KINDS)
            try:
                scene.system.kill(name, how)
                kills += 1
                hangs += how == "hang"
            except KillRefused:
                pass
        scene.tell(n)
        if n % 40 == 0:
            scene.settle()
    scene.settle()
    taken_for_hung = sum(f.phase == "hang" for f in scene.recorder.of(ActorFailed)) - hangs
    for name, first in (("a", 0), ("b", 1_000)):
        handled = in_their_epochs(scene, name)
        assert list(dict.fromkeys(handled)) == [first + n for n in range(400)]
        assert len(handled) - 400 <= max(0, taken_for_hung), "killed before it was handled, so handled once"
    assert kills > 10
    assert len(scene.recorder.of(ActorFailed)) >= kills - 2
    assert scene.system.dead_letters() == ()


def test_a_kill_and_a_failure_of_its_own(scene: Scene) -> None:
    """A kill that is pending when the actor dies otherwise goes with it."""
    go = threading.Event()
    scene.script.on_message[1] = once(lambda actor: (go.wait(WAIT_S), fail(ValueError("own"))(actor)))
    scene.start()
    scene.tell(1)
    scene.system.kill(A, "vanish")
    go.set()
    scene.tell(2)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    assert scene.handled()[-1] == 2
