"""An orderly stop: last started first, each works off what waits, who will not is left behind and named."""

import threading
import time
from collections.abc import Callable

import pytest

from .. import ActorFailed, ActorStopped, Address, Backoff, NotRunning, system
from .support import WAIT_S, A, B, C, Num, Scene, Scripted, fail, once, spec


def test_last_started_first_and_what_waits_is_handled(scene: Scene) -> None:
    order: list[str] = []
    scene.script.on_stopped = lambda actor: order.append(str(actor.context.address))
    scene.script.on_message[7] = lambda actor: actor.context.tell(A, Num(70))
    scene.start(spec(scene.script, A), spec(scene.script, B), spec(scene.script, C))
    scene.tell(*range(500), to=C)
    scene.tell(*range(500), to=B)
    assert scene.system.stop() == ()
    assert order == ["c/x", "b", "a"]
    assert scene.handled("b") == scene.handled("c/x") == list(range(500))
    assert scene.handled("a") == [70, 70], "downstream still worked when upstream finished"
    assert [e.name for e in scene.recorder.of(ActorStopped)] == order
    assert {s.state for s in scene.system.tree()} == {"stopped"}


def test_after_a_stop_names_refuse_and_threads_are_gone(scene: Scene) -> None:
    scene.start()
    thread = scene.script.made[0].context.thread  # type: ignore[attr-defined]
    scene.system.stop()
    assert not thread.is_alive()
    assert not scene.system.tell(A, Num(1))
    with pytest.raises(NotRunning):
        scene.system.ask(A, Num(1), 1)
    assert scene.system.stop() == ()


def test_one_that_will_not_stop_is_abandoned_named_and_fenced(scene: Scene) -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def stuck(actor: object) -> None:
        begun.set()
        assert go.wait(WAIT_S)
        try:
            actor.context.tell(A, Num(99))  # type: ignore[attr-defined]
        finally:
            done.set()

    scene.script.on_message[1] = stuck
    scene.start(spec(scene.script, A), spec(scene.script, B, stop_deadline_ms=50), spec(scene.script, C))
    scene.tell(1, 2, to=B)
    assert begun.wait(WAIT_S)
    assert scene.system.stop() == ("b",)
    stopped = [(e.name, e.abandoned) for e in scene.recorder.of(ActorStopped)]
    assert stopped == [("c/x", False), ("b", True), ("a", False)]
    assert [(d.name, d.attempts) for d in scene.system.dead_letters()] == [("b", 0)], "what it left is kept"
    go.set()
    assert done.wait(WAIT_S)
    assert scene.system.refused_effects == 1


def test_the_whole_stop_has_a_deadline(scene: Scene) -> None:
    go = threading.Event()
    scene.script.on_message[1] = lambda _: go.wait(WAIT_S)
    names = (A, B, C)
    scene.start(*(spec(scene.script, name, stop_deadline_ms=60_000) for name in names))
    for name in names:
        scene.tell(1, to=name)
    begun = time.monotonic()
    assert scene.system.stop(200) == ("c/x", "b", "a")
    assert time.monotonic() - begun < 20
    go.set()


def test_some_may_last_only_until_a_moment_of_the_stop_so_that_the_rest_has_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "MOMENT_S", 1.0)  # a busy machine is slow to stop one that stops at once
    go, begun = threading.Event(), [threading.Event() for _ in range(2)]
    scene.script.on_message[1] = lambda _: (begun[0].set(), go.wait(WAIT_S))
    scene.script.on_message[2] = lambda _: (begun[1].set(), go.wait(WAIT_S))
    idle = Address("idle")
    early = {"stop_deadline_ms": 60_000, "stop_by_ms": 100}
    scene.start(
        spec(scene.script, A, stop_deadline_ms=60_000),
        spec(scene.script, idle, **early),
        spec(scene.script, B, **early),
        spec(scene.script, C, **early),
    )
    scene.tell(1, to=C)
    scene.tell(2, to=B)
    assert all(one.wait(WAIT_S) for one in begun)
    scene.tell(3)
    started = time.monotonic()
    assert scene.system.stop(60_000) == ("c/x", "b"), "one that stops at once is not left behind for the others' sake"
    assert time.monotonic() - started < 20
    assert scene.handled("a") == [3]
    go.set()


def test_an_actor_that_is_away_is_brought_back_for_what_it_accepted(scene: Scene) -> None:
    scene.script.on_message[1] = once(fail(ValueError("x")))
    scene.start(spec(scene.script, backoff=Backoff(min_ms=60_000, max_ms=60_000)))
    scene.tell(1, 2, 3)
    scene.recorder.wait(ActorFailed)
    assert scene.system.stop() == ()
    assert scene.handled() == [1, 2, 3]
    assert scene.recorder.of(ActorStopped)[0].epoch == 2


def test_a_failure_while_it_works_off_what_waits_does_not_lose_the_rest(scene: Scene) -> None:
    begun, go = threading.Event(), threading.Event()
    scene.script.on_message[1] = lambda _: (begun.set(), go.wait(WAIT_S))
    scene.script.on_message[2] = fail(ValueError("poison"))
    scene.start()
    scene.tell(1, 2, 3, 4)
    assert begun.wait(WAIT_S)
    threading.Timer(0.01, go.set).start()
    assert scene.system.stop() == ()
    assert scene.handled() == [1, 3, 4]
    assert [d.attempts for d in scene.system.dead_letters()] == [2]


def test_one_that_vanished_unseen_is_brought_back_too(scene: Scene) -> None:
    scene.start(spec(scene.script, stop_deadline_ms=5_000))
    scene.system.kill(A, "vanish")
    scene.tell(1, 2)
    scene.script.made[0].context.thread.join(WAIT_S)  # type: ignore[attr-defined]
    assert scene.system.stop() == ()
    assert scene.handled() == [1, 2]


def test_an_idle_actor_that_is_away_is_left_alone(scene: Scene) -> None:
    scene.script.on_message[1] = fail(ValueError("x"))
    scene.start(spec(scene.script, poison_attempts=1, backoff=Backoff(min_ms=60_000, max_ms=60_000)))
    scene.tell(1)
    scene.recorder.wait(ActorFailed)
    scene.system.stop()
    assert len(scene.script.made) == 1


def test_a_stop_needs_no_living_supervisor(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    scene.start(spec(scene.script, A), spec(scene.script, B))
    scene.system.kill(scene.system_name, "raise")
    scene.clock.advance(250)
    assert scene.escalation.wait(WAIT_S)
    scene.tell(1, 2)
    assert scene.system.stop() == ()
    assert scene.handled() == [1, 2]


def test_a_hung_supervisor_is_left_behind_and_named(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(supervisor_deadline_ms=100)
    scene.start()
    scene.system.kill(scene.system_name, "hang")
    scene.clock.advance(250)
    assert scene.escalation.wait(WAIT_S)
    assert scene.escalated[0].startswith("the supervisor hangs for ")
    scene.tell(1)
    assert scene.system.stop() == ("supervisor",)
    assert scene.handled() == [1]


def test_owned_threads_are_waited_for_but_not_for_long(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "OWNED_S", 2.0)  # a busy machine is slow to end three threads
    go, ended = threading.Event(), []
    threads = []

    def reads_on(actor: Scripted) -> None:
        def read() -> None:
            while actor.context.is_current():
                time.sleep(0.001)
            time.sleep(0.05)
            ended.append(actor.context.address)

        threads.append(actor.context.spawn_thread("reader", read))
        if actor.context.address == C:
            threads.append(actor.context.spawn_thread("deaf", lambda: go.wait(WAIT_S)))

    scene.script.on_started = reads_on
    scene.start(spec(scene.script, A), spec(scene.script, B), spec(scene.script, C))
    begun = time.monotonic()
    assert scene.system.stop() == ()
    assert time.monotonic() - begun < 20
    assert sorted(ended) == [A, B, C]
    assert [t.name for t in threads if t.is_alive()] == ["c/x:deaf"]
    said = [r.getMessage() for r in caplog.records if r.name == "supervision"]
    assert said == ["thread c/x:deaf has not ended and is left behind"]
    go.set()


def test_a_system_that_was_never_started_stops(scene: Scene) -> None:
    assert scene.system.stop() == ()
