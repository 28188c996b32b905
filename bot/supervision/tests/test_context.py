"""What an actor is given: tell, timers, watch, states, and when all is at rest."""

import threading
import time
from collections.abc import Callable

import pykka
import pytest

from .. import (
    ActorQuarantined,
    ActorRestarted,
    ActorStopped,
    Address,
    NotRunning,
    Restart,
    Terminated,
)
from .support import WAIT_S, A, B, Halt, Num, Price, Scene, Scripted, fail, once, small, spec

# Addresses


def test_an_address_reads_as_text_and_back() -> None:
    for address, text in ((Address("feed", "BTCUSDT"), "feed/BTCUSDT"), (Address("bridge"), "bridge")):
        assert str(address) == text
        assert Address.parse(text) == address
    assert Address.parse("a/b/c") == Address("a", "b/c")
    assert Address("a") < Address("a", "b") < Address("b")
    for text in ("", "/", "a/", "/a"):
        with pytest.raises(ValueError, match="not an address"):
            Address.parse(text)


# Tell


def test_tell_says_whether_it_was_taken_and_never_raises_because_the_other_died(scene: Scene) -> None:
    answers: list[bool] = []
    scene.script.on_message[1] = lambda actor: answers.extend(
        actor.context.tell(to, Num(2)) for to in (B, Address("nobody"), Address("gone"))
    )
    gone = spec(scene.script, Address("gone"), restart=Restart.TEMPORARY)
    scene.start(spec(scene.script, A), spec(scene.script, B), gone)
    scene.script.on_message[3] = fail(ValueError("x"))
    scene.tell(3, to=Address("gone"))
    scene.recorder.wait(ActorStopped, "gone")
    scene.tell(1)
    scene.settle()
    assert answers == [True, False, False]
    assert scene.system.undelivered == 2
    assert not scene.system.tell(Address("nobody"), Num(1))


def test_a_full_stream_lane_says_no_and_control_still_gets_in(scene: Scene) -> None:
    begun, go = threading.Event(), threading.Event()
    scene.script.on_message[1] = lambda _: (begun.set(), go.wait(WAIT_S))
    scene.start(spec(scene.script, lane_bounds=small(must=9, stream=2)))
    scene.tell(1)
    assert begun.wait(WAIT_S)
    assert [scene.system.tell(A, Price(n)) for n in (2, 3, 4)] == [True, True, False]
    scene.tell(5)
    assert scene.system.tell(A, Halt(6))
    go.set()
    scene.settle()
    assert scene.handled() == [1, 6, 2, 3, 5]


def test_pykka_refs_work_but_proxies_are_refused(scene: Scene) -> None:
    scene.script.on_message[2] = lambda _: "two"
    scene.script.on_message[13] = fail(ValueError("bad"))
    scene.start()
    ref = scene.script.made[0].actor_ref
    ref.tell(Num(1))
    assert ref.ask(Num(2), timeout=WAIT_S) == "two"
    with pytest.raises(TypeError, match="no proxy calls"):
        ref.proxy().script.get()
    with pytest.raises(ValueError, match="bad"):
        ref.ask(Num(13), timeout=WAIT_S)
    scene.recorder.wait(ActorRestarted)
    with pytest.raises(pykka.ActorDeadError):
        ref.tell(Num(3))
    assert scene.script.made[1].actor_ref.stop(timeout=WAIT_S)
    scene.recorder.wait(ActorRestarted, count=2)


def test_an_actor_outside_of_a_system_does_not_start() -> None:
    from ..testing import RecordingContext
    from .support import Script

    actor = Script().actor(RecordingContext())
    with pytest.raises(RuntimeError, match="started by its ActorSystem"):
        actor.on_start()


# Timers


def test_timers_ring_in_time_order_on_the_clock_and_can_be_cancelled(scene: Scene) -> None:
    def arm(actor: Scripted) -> None:
        actor.context.after(3_000, Num(30))
        actor.context.after(1_000, Num(10))
        actor.context.after(2_000, Num(20)).cancel()
        actor.context.after(2_500, Num(25))

    scene.script.on_message[1] = arm
    scene.start()
    scene.tell(1)
    scene.settle()
    scene.clock.advance(999)
    scene.settle()
    assert scene.handled() == [1]
    scene.clock.advance(2_001)
    scene.settle()
    assert scene.handled() == [1, 10, 25, 30]


def test_a_timer_of_an_epoch_that_is_over_does_not_ring(scene: Scene) -> None:
    scene.script.on_started = lambda actor: actor.context.after(1_000, Num(actor.context.epoch)) and None
    scene.script.on_message[13] = once(fail(ValueError("x")))
    scene.start()
    scene.tell(13)
    scene.settle()
    scene.clock.advance(5_000)
    scene.settle()
    assert scene.handled() == [13, 2]


def test_a_timer_that_rang_ends_with_its_epoch_too(scene: Scene) -> None:
    begun, go = threading.Event(), threading.Event()

    def on_message(actor: Scripted) -> None:
        actor.context.after(0, Num(99))
        begun.set()
        assert go.wait(WAIT_S)
        raise ValueError("x")

    scene.script.on_message[1] = once(on_message)
    scene.start()
    scene.tell(1)
    assert begun.wait(WAIT_S)
    scene.clock.advance(1)
    assert scene.status().mailbox.control == 1
    go.set()
    scene.settle()
    assert scene.handled() == [1]


def test_a_timer_whose_message_kills_is_not_tried_again(scene: Scene) -> None:
    scene.script.on_message[1] = lambda actor: actor.context.after(0, Num(13))
    scene.script.on_message[13] = once(fail(ValueError("x")), epochs=9)
    scene.start()
    scene.tell(1)
    scene.settle()
    scene.clock.advance(1)
    scene.recorder.wait(ActorRestarted)
    scene.settle()
    assert scene.handled() == [1]
    assert scene.status().epoch == 2
    assert scene.system.dead_letters() == ()


# Watch


def test_a_watcher_is_told_of_each_end(scene: Scene) -> None:
    scene.script.on_started = lambda actor: actor.context.watch(B) if actor.context.address == A else None
    scene.script.on_message[13] = fail(ValueError("x"))
    scene.start(spec(scene.script, A), spec(scene.script, B, poison_attempts=2, restart=Restart.TRANSIENT))
    scene.tell(13, to=B)
    scene.script.log.wait(Terminated("b", 2, "ValueError: x"))
    scene.script.on_message[1] = lambda actor: actor.stop()
    scene.recorder.wait(ActorRestarted, "b", count=2)
    scene.tell(1, to=B)
    scene.script.log.wait(Terminated("b", 3, "stopped"))
    assert [m.epoch for m in scene.script.log.messages()] == [1, 2, 3]


def test_a_watcher_of_nobody_is_told_at_once_and_a_dead_one_never(scene: Scene) -> None:
    scene.script.on_started = lambda actor: actor.context.watch(B if actor.context.epoch == 1 else Address("nobody"))
    scene.script.on_message[13] = once(fail(ValueError("x")))
    scene.start(spec(scene.script, A), spec(scene.script, B))
    scene.tell(13)
    scene.script.log.wait(Terminated("nobody", 0, "unknown"))
    scene.tell(13, to=B)
    scene.recorder.wait(ActorRestarted, "b")
    scene.settle()
    assert Terminated("b", 1, "ValueError: x") not in scene.script.log.messages()


# Rest


def test_wait_settled_waits_for_all_that_a_message_causes(make_scene: Callable[..., Scene]) -> None:
    """a -> b -> c -> a ..., 200 hops from each of 50 messages: at rest only when the last one was handled."""
    scene = make_scene(real=True)
    names = [Address("ring", str(n)) for n in range(5)]

    class Ring(Scripted):
        def handle(self, message: object) -> None:
            assert isinstance(message, Num)
            self.script.log.entries.append((str(self.context.address), 1, message))
            if message.n:
                at = names.index(self.context.address)
                self.context.tell(names[(at + 1) % 5], Num(message.n - 1))

    base = spec(scene.script)
    scene.start(*(type(base)(name, lambda context: Ring(context, scene.script)) for name in names))
    for n in range(50):
        scene.tell(20, to=names[0])
        assert scene.system.wait_settled(WAIT_S)
        assert len(scene.script.log.entries) == (n + 1) * 21


def test_wait_settled_gives_up_and_ignores_the_untracked(scene: Scene) -> None:
    go = threading.Event()
    scene.script.on_message[1] = lambda _: go.wait(WAIT_S)
    scene.start(spec(scene.script, A), spec(scene.script, B, tracked=False))
    scene.tell(1, to=B)
    assert scene.system.wait_settled(0)
    scene.tell(1, to=A)
    begun = time.monotonic()
    assert not scene.system.wait_settled(0.02)
    assert time.monotonic() - begun >= 0.02
    go.set()
    scene.settle()


def test_what_waits_in_quarantine_is_not_waited_for_until_it_is_released(scene: Scene) -> None:
    scene.script.on_message[13] = fail(ValueError("x"))
    scene.start(spec(scene.script, max_restarts=0, poison_attempts=9))
    scene.tell(13, 1)
    scene.recorder.wait(ActorQuarantined)
    assert scene.system.wait_settled(0)
    scene.script.on_message.clear()
    scene.system.release(A)
    scene.script.log.wait(Num(1))
    scene.settle()
    assert scene.handled() == [13, 1]


def test_an_ask_to_a_name_that_takes_none(scene: Scene) -> None:
    scene.start()
    with pytest.raises(NotRunning):
        scene.system.ask(Address("nobody"), Num(1), 1)
    go = threading.Event()
    scene.script.on_message[1] = lambda _: go.wait(WAIT_S)
    with pytest.raises(pykka.Timeout):
        scene.system.ask(A, Num(1), 0.01)
    go.set()
