"""Each way to die ends one incarnation only, is reported once, and what waited is handled in order by the next."""

import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from .. import (
    ActorCrashed,
    ActorFailed,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    Exceeded,
    Restart,
)
from .support import A, B, Num, Scene, Scripted, fail, names, once, spec


def bystander(scene: Scene) -> None:
    """Assert that b lives in its first epoch and still works."""
    scene.tell(99, to=B)
    scene.settle()
    assert scene.handled("b")[-1] == 99
    assert scene.status("b").epoch == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad\n  thing"), "ValueError: bad thing"),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit("odd"), "GeneratorExit: odd"),
    ],
)
def test_raised_in_a_handler(scene: Scene, error: BaseException, text: str) -> None:
    scene.script.on_message[2] = once(fail(error))
    scene.start(spec(scene.script), spec(scene.script, B))
    scene.tell(1, 2, 3, 4)
    scene.settle()
    assert scene.handled() == [1, 2, 3, 4]
    assert [e[1] for e in scene.script.log.entries] == [1, 2, 2, 2]
    scene.recorder.wait(ActorRestarted)
    assert scene.recorder.of(ActorFailed) == [
        ActorFailed("a", 1, "handle", "Num", text, scene.clock.now_ms()),
    ]
    assert scene.status().last_error == text
    bystander(scene)


@pytest.mark.parametrize("error", [OSError("no disk"), SystemExit(1)])
def test_raised_in_started_is_a_failure_at_start(scene: Scene, error: BaseException) -> None:
    def on_started(actor: Scripted) -> None:
        if actor.context.address == A and actor.context.epoch < 3:
            raise error

    scene.script.on_started = on_started
    scene.start(spec(scene.script), spec(scene.script, B))
    scene.tell(1, 2)
    scene.settle()
    assert scene.handled() == [1, 2]
    failures = scene.recorder.of(ActorFailed)
    assert [(f.epoch, f.phase, f.message_type) for f in failures] == [(1, "start", ""), (2, "start", "")]
    bystander(scene)


@pytest.mark.parametrize("error", [OSError("no port"), SystemExit(1)])
def test_raised_by_the_factory_is_a_failure_at_start(scene: Scene, error: BaseException) -> None:
    tries = []

    def factory(context: object) -> Scripted:
        tries.append(1)
        if len(tries) == 1:
            raise error
        return scene.script.actor(context)  # type: ignore[arg-type]

    base = spec(scene.script)
    scene.start(type(base)(A, factory, backoff=base.backoff))
    scene.tell(1)
    scene.settle()
    assert scene.handled() == [1]
    assert [f.phase for f in scene.recorder.of(ActorFailed)] == ["start"]


def test_a_factory_must_return_an_actor_of_that_context(scene: Scene) -> None:
    other = Scene()
    other.start()
    stranger = other.script.made[0]
    base = spec(scene.script, restart=Restart.TEMPORARY)
    scene.start(type(base)(A, lambda _: stranger, restart=Restart.TEMPORARY))
    assert "another context" in scene.recorder.wait(ActorFailed).error
    assert other.system.stop() == ()


@pytest.mark.parametrize("error", [ValueError("half done"), SystemExit(1)])
def test_raised_in_an_ask_answers_the_asker_and_fails_the_actor(scene: Scene, error: BaseException) -> None:
    scene.script.on_message[2] = fail(error)
    scene.start(spec(scene.script), spec(scene.script, B))
    expected = ValueError if isinstance(error, ValueError) else ActorCrashed
    with pytest.raises(expected):
        scene.system.ask(A, Num(2), 30)
    scene.tell(3)
    scene.settle()
    assert scene.handled() == [3], "what was asked is not tried again: the asker knows"
    assert scene.recorder.of(ActorFailed)[0].message_type == "Num"
    assert scene.status().epoch == 2
    bystander(scene)


def test_an_ask_is_answered(scene: Scene) -> None:
    scene.script.on_message[2] = lambda _: "two"
    scene.start()
    assert scene.system.ask(A, Num(2), 30) == "two"


@pytest.mark.parametrize("error", [ValueError("not closed"), SystemExit(1)])
def test_raised_in_stopped_is_seen_and_stops_nobody_else(scene: Scene, error: BaseException) -> None:
    def on_stopped(actor: Scripted) -> None:
        scene.script.log.add(actor.context, "stopped")
        if actor.context.address == B:
            raise error

    scene.script.on_stopped = on_stopped
    scene.start(spec(scene.script), spec(scene.script, B))
    assert scene.system.stop() == ()
    assert scene.script.log.messages("a") == scene.script.log.messages("b") == ["stopped"]
    failed = scene.recorder.of(ActorFailed)
    assert [(f.name, f.phase) for f in failed] == [("b", "stop")]
    assert [(s.name, s.abandoned) for s in scene.recorder.of(ActorStopped)] == [("b", False), ("a", False)]


@pytest.mark.parametrize("error", [ConnectionError("reset"), SystemExit(1)])
def test_raised_in_a_thread_that_the_actor_owns(scene: Scene, error: BaseException) -> None:
    go = threading.Event()

    def read() -> None:
        assert go.wait(30)
        raise error

    def on_started(actor: Scripted) -> None:
        if actor.context.epoch == 1:
            actor.context.spawn_thread("reader", read)

    scene.script.on_started = on_started
    scene.start()
    go.set()
    failed = scene.recorder.wait(ActorFailed)
    assert (failed.phase, failed.epoch) == ("thread", 1)
    scene.recorder.wait(ActorRestarted)
    scene.tell(1)
    scene.settle()
    assert scene.script.log.entries == [("a", 2, Num(1))]


def test_an_owned_thread_may_end_in_peace(scene: Scene) -> None:
    scene.script.on_started = lambda actor: actor.context.spawn_thread("reader", lambda: None).join(30)
    scene.start()
    scene.clock.advance(1_000)
    scene.tell(1)
    scene.settle()
    assert scene.recorder.of(ActorFailed) == []


def test_an_owned_thread_that_fails_spares_the_message_in_hand(scene: Scene) -> None:
    """The handler did nothing wrong, so its message is no suspect however often it meets such a failure."""

    def on_message(actor: Scripted) -> None:
        if actor.context.epoch > 3:
            return
        actor.context.spawn_thread("reader", lambda: fail(ValueError("x"))(actor)).join(30)

    scene.script.on_message[1] = on_message
    scene.start(spec(scene.script, poison_attempts=1))
    scene.tell(1)
    scene.settle()
    scene.recorder.wait(ActorRestarted, count=3)
    assert scene.system.dead_letters() == ()
    assert ("a", 4, Num(1)) in scene.script.log.entries


def test_a_thread_that_vanishes_is_found(scene: Scene) -> None:
    """Ended without a word, as by a C library: nothing raised, nothing reported, the message half handled."""
    scene.script.on_message[1] = once(lambda actor: actor.leave())
    scene.start()
    thread = scene.script.made[0].context.thread  # type: ignore[attr-defined]
    scene.tell(1, 2)
    thread.join(30)
    assert not scene.recorder.of(ActorFailed)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    assert [e[1:] for e in scene.script.log.entries] == [(1, Num(1)), (2, Num(1)), (2, Num(2))]
    failed = scene.recorder.wait(ActorFailed)
    assert (failed.phase, failed.message_type) == ("vanish", "Num")


def test_the_supervisor_raises_and_the_process_is_to_stop(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    scene.start()

    def broken(report: object) -> None:
        raise RuntimeError("a bug")

    scene.system._supervision.down = broken  # type: ignore[method-assign, assignment]
    scene.script.on_message[1] = fail(ValueError("x"))
    scene.tell(1)
    assert scene.escalation.wait(30)
    assert scene.escalated == ["the supervisor ended: RuntimeError: a bug"]
    assert scene.status("supervisor").state == "stopped"
    assert scene.system.stop() == ()


def test_a_child_may_stop_itself(scene: Scene) -> None:
    scene.script.on_message[1] = lambda actor: actor.stop()
    scene.start(spec(scene.script, restart=Restart.TRANSIENT), spec(scene.script, B))
    scene.tell(1)
    scene.recorder.wait(ActorStopped)
    assert not scene.system.tell(A, Num(2))
    assert names(scene.recorder.events) == ["ActorStarted", "ActorStarted", "ActorStopped"]
    scene.script.on_message[3] = once(lambda actor: actor.stop())
    scene.tell(3, to=B)
    scene.recorder.wait(ActorRestarted, "b")
    scene.tell(4, to=B)
    scene.settle()
    assert scene.script.log.entries[-1] == ("b", 2, Num(4)), "a permanent one comes back"


def test_an_exception_hurts_no_listener(scene: Scene) -> None:
    def listener(event: object) -> None:
        scene.recorder(event)
        raise ValueError("a bad listener")

    scene.system._supervision._on_event = listener
    scene.start()
    assert scene.recorder.wait(ActorStarted)
    scene.tell(1)
    scene.settle()
    assert scene.escalated == []


def test_too_many_failures_at_the_root_stop_the_process(scene: Scene) -> None:
    scene.script.on_message[1] = fail(ValueError("always"))
    others = set(threading.enumerate())
    scene.start(spec(scene.script, max_restarts=2, on_exceeded=Exceeded.ESCALATE, poison_attempts=9))
    (guardian,) = (t for t in set(threading.enumerate()) - others if t.name == "guardian")
    scene.tell(1)
    assert scene.escalation.wait(30)
    assert scene.escalated == ["a: more than 2 failures in 30000 ms, last: ValueError: always"]
    assert len(scene.recorder.of(ActorFailed)) == 3
    scene.system.kill(scene.system_name, "vanish")
    thread = scene.system._supervisor.thread  # type: ignore[union-attr]
    scene.clock.advance(250)
    assert thread is not None
    thread.join(30)
    guardian.join(30)
    assert len(scene.escalated) == 1, "once is enough"


def test_threads_that_ended_well_are_forgotten(scene: Scene) -> None:
    left: list[weakref.ref[threading.Thread]] = []

    def spawn(actor: Scripted) -> None:
        thread = actor.context.spawn_thread("reader", lambda: None)
        thread.join(30)
        left.append(weakref.ref(thread))

    scene.script.on_message[1] = spawn
    scene.start().tell(*[1] * 50)
    scene.settle()
    gc.collect()
    assert len(left) == 50
    assert sum(ref() is not None for ref in left) <= 2
