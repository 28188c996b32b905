"""The tree is read, never asked: it shows the truth also while every actor hangs."""

import threading
from collections.abc import Callable

import pytest

from .. import (
    ActorFailed,
    ActorRestarted,
    ActorStarted,
    ActorStatus,
    Backoff,
    Depth,
    log_thread_tracebacks,
)
from .support import WAIT_S, A, B, Halt, Price, Scene, Scripted, fail, names, once, spec


def test_before_and_after(scene: Scene) -> None:
    assert [(s.name, s.state) for s in scene.system.tree()] == [("supervisor", "starting")]
    scene.start(spec(scene.script, A), spec(scene.script, B))
    scene.clock.advance(1_500)
    assert scene.status() == ActorStatus(
        name="a",
        kind="a",
        state="running",
        epoch=1,
        restarts=0,
        uptime_ms=1_500,
        mailbox=Depth(),
        last_error="",
        busy_ms=0,
        last_done_ms=scene.status().last_done_ms,
        abandoned=0,
    )
    assert [s.name for s in scene.system.tree()] == ["supervisor", "a", "b"]
    scene.system.stop()
    assert [s.state for s in scene.system.tree()] == ["stopped"] * 3


def test_it_is_read_while_every_actor_hangs(scene: Scene) -> None:
    go = threading.Event()
    begun = [threading.Event(), threading.Event()]

    def stall(actor: Scripted) -> None:
        begun[actor.context.address == B].set()
        go.wait(WAIT_S)

    scene.script.on_message[1] = stall
    scene.start(*(spec(scene.script, name, handler_deadline_ms=60_000) for name in (A, B)))
    for name, event in zip((A, B), begun, strict=True):
        scene.tell(1, 2, to=name)
        assert event.wait(WAIT_S)
        scene.system.tell(name, Price(3))
        scene.system.tell(name, Halt(4))
    scene.clock.advance(7_000)
    for name in ("a", "b"):
        status = scene.status(name)
        assert status.busy_ms == 7_000
        assert status.mailbox == Depth(control=1, must=1, stream=1)
        assert status.mailbox.total == 3
    go.set()
    scene.settle()
    assert scene.status().busy_ms == 0
    assert scene.status().mailbox.total == 0


def test_it_is_read_while_the_supervisor_hangs(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(supervisor_deadline_ms=50)
    scene.start()
    scene.system.kill(scene.system_name, "hang")
    scene.clock.advance(250)
    assert scene.escalation.wait(WAIT_S)
    scene.clock.advance(10)
    assert scene.status("supervisor").busy_ms >= 10
    assert scene.status("a").state == "running"


def test_the_actor_shows_that_it_recovers(scene: Scene) -> None:
    scene.script.on_started = lambda actor: actor.context.set_state("recovering")
    scene.script.on_message[1] = lambda actor: actor.context.set_state("running")
    scene.script.on_message[2] = lambda actor: actor.context.set_state("fine")
    scene.start()
    assert scene.status().state == "recovering"
    scene.tell(1)
    scene.settle()
    assert scene.status().state == "running"
    scene.tell(2)
    assert scene.recorder.wait(ActorFailed).error.startswith("ValueError: 'fine' is none of")


def test_it_tells_of_the_last_error_and_of_restarts(scene: Scene) -> None:
    scene.script.on_message[1] = once(fail(ValueError("x")))
    scene.start(spec(scene.script, backoff=Backoff(min_ms=1_000, jitter=0)))
    scene.clock.advance(10_000_000)
    scene.tell(1)
    scene.recorder.wait(ActorFailed)
    status = scene.status()
    assert (status.state, status.epoch, status.restarts, status.uptime_ms) == ("restarting", 1, 0, 0) or (
        status.restarts == 1  # noted already
    )
    assert status.last_error == "ValueError: x"
    assert status.mailbox == Depth(must=1)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    status = scene.status()
    assert (status.state, status.epoch, status.restarts) == ("running", 2, 1)
    assert status.uptime_ms < 10_000_000
    assert status.last_error == "ValueError: x"
    assert status.last_done_ms is not None


def test_events_come_in_the_order_in_which_things_happen(scene: Scene) -> None:
    scene.script.on_message[1] = fail(ValueError("x"))
    scene.start(spec(scene.script, A), spec(scene.script, B))
    scene.tell(1)
    scene.settle()
    scene.recorder.wait(ActorRestarted, count=2)
    scene.system.stop()
    assert names(scene.recorder.events) == [
        *("ActorStarted", "ActorStarted"),
        *("ActorFailed", "ActorRestarted"),
        *("ActorFailed", "DeadLetter", "ActorRestarted"),
        *("ActorStopped", "ActorStopped"),
    ]
    assert scene.recorder.events[0] == ActorStarted("a", 1, "a", scene.clock.now_ms())


def test_threads_bear_the_names_of_their_actors(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()
    scene.script.on_message[1] = lambda _: go.wait(WAIT_S)
    scene.script.on_started = lambda actor: (
        actor.context.spawn_thread("reader", lambda: go.wait(WAIT_S) and None) and None
    )
    scene.start()
    scene.tell(1)
    names_now = {thread.name for thread in threading.enumerate()}
    assert {"a", "a:reader", "supervisor", "guardian"} <= names_now
    log_thread_tracebacks()
    go.set()
    assert any("Current state of a " in record.message for record in caplog.records)
