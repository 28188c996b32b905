"""The recording context behaves as the live one, without threads; the clocks keep time."""

import threading

import pytest

from .. import Address, Context, Fenced, MailboxFull, SystemClock
from ..testing import ManualClock, RecordingContext
from .support import A, B, Num, Script, fail


def recording() -> tuple[Script, RecordingContext]:
    return Script(), RecordingContext(A)


def test_an_actor_is_tested_by_its_handler_alone() -> None:
    script, context = recording()
    script.on_message[1] = lambda actor: actor.context.tell(B, Num(2))
    actor = script.actor(context)
    actor.started()
    actor.handle(Num(1))
    assert context.sent == [(B, Num(2))]
    assert context.sent_to(B) == [Num(2)]
    assert context.sent_to(A) == []


def test_it_is_a_context() -> None:
    context: Context = RecordingContext()
    assert context.address == Address("actor", "test")


def test_refusals_can_be_staged() -> None:
    _, context = recording()
    context.refusing.add(B)
    assert not context.tell(B, Num(1))
    context.full.add(B)
    with pytest.raises(MailboxFull):
        context.tell(B, Num(1))
    assert context.sent == []


def test_timers_ring_when_the_clock_is_moved() -> None:
    _, context = recording()
    assert isinstance(context.clock, ManualClock)
    context.after(200, Num(2))
    context.after(100, Num(1))
    context.after(150, Num(9)).cancel()
    context.clock.advance(150)
    assert context.due == [Num(1)]
    context.end_epoch()
    context.clock.advance(100)
    assert context.due == [Num(1)]
    assert context.armed == [(200, Num(2)), (100, Num(1)), (150, Num(9))]


def test_the_end_of_the_epoch_fences() -> None:
    _, context = recording()
    seen: list[str] = []
    assert context.run_fenced(lambda: "done") == "done"
    context.on_epoch_end(lambda: seen.append("closed"))
    context.end_epoch()
    context.end_epoch()
    context.on_epoch_end(lambda: seen.append("late"))
    assert seen == ["closed", "late"]
    assert not context.is_current()
    for attempt in (
        lambda: context.tell(B, Num(1)),
        lambda: context.run_fenced(lambda: None),
        lambda: context.after(1, Num(1)),
        lambda: context.watch(B),
        lambda: context.spawn_thread("x", lambda: None),
    ):
        with pytest.raises(Fenced):
            attempt()
    assert context.refused == 5


def test_threads_watches_and_states_are_recorded() -> None:
    _, context = recording()
    thread = context.spawn_thread("reader", lambda: None)
    assert not thread.is_alive()
    assert [name for name, _ in context.threads] == ["reader"]
    context.watch(B)
    assert context.watched == [B]
    context.set_state("recovering")
    assert context.state == "recovering"


def test_a_failing_handler_just_raises() -> None:
    script, context = recording()
    script.on_message[1] = fail(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        script.actor(context).handle(Num(1))


def test_the_hand_clock_runs_what_falls_due_at_its_time() -> None:
    clock = ManualClock(now_ms=1_000)
    seen: list[int] = []
    clock.call_later(20, lambda: (seen.append(clock.now_ms()), clock.call_later(5, lambda: seen.append(5)))[0])
    clock.advance(19)
    assert seen == []
    clock.advance(100)
    assert seen == [1_020, 5]
    assert (clock.now_ms(), clock.monotonic_ms()) == (1_119, 119)


def test_the_system_clock_rings_in_order_and_can_be_cancelled() -> None:
    clock = SystemClock()
    seen: list[int] = []
    done = threading.Event()
    begun = clock.monotonic_ms()
    clock.call_later(30, lambda: (seen.append(30), done.set())[0])
    clock.call_later(1, lambda: seen.append(1))
    clock.call_later(5, lambda: seen.append(5)).cancel()
    assert done.wait(30)
    assert seen == [1, 30]
    assert clock.monotonic_ms() - begun >= 30
    assert clock.now_ms() > 1_600_000_000_000
