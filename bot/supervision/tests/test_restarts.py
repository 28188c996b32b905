"""Restarts as data: who comes back, when, with whom, and when it is enough."""

import random
import threading
from collections.abc import Callable

import pytest

from .. import (
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    Address,
    Backoff,
    ChildSpec,
    DeadLetter,
    Restart,
    Strategy,
)
from ..spec import History
from .support import WAIT_S, A, B, C, Num, Scene, Scripted, fail, names, once, small, spec

BAD = 13


def crash_loop(scene: Scene, **fields: object) -> Scene:
    scene.script.on_message[BAD] = fail(ValueError("bad"))
    return scene.start(spec(scene.script, **fields), spec(scene.script, B))


# The arithmetic


def test_backoff_grows_to_its_cap() -> None:
    backoff = Backoff(min_ms=100, max_ms=1_000, factor=2, jitter=0)
    rng = random.Random(0)
    assert [backoff.delay_ms(n, rng) for n in range(6)] == [100, 200, 400, 800, 1_000, 1_000]
    assert backoff.delay_ms(10_000, rng) == 1_000


def test_jitter_spreads_within_its_part_and_below_the_cap() -> None:
    backoff = Backoff(min_ms=1_000, max_ms=1_100, jitter=0.2)
    waits = [backoff.delay_ms(0, random.Random(n)) for n in range(200)]
    assert min(waits) >= 800
    assert max(waits) == 1_100
    assert len(set(waits)) > 50


def test_backoff_begins_anew_after_health() -> None:
    history = History(
        ChildSpec(A, Scripted, backoff=Backoff(jitter=0, reset_after_ms=5_000))  # type: ignore[arg-type]
    )
    rng = random.Random(0)
    assert [history.delay_ms(up, rng) for up in (0, 10, 4_999, 5_000, 0)] == [100, 200, 400, 100, 200]


def test_intensity_counts_within_the_period_only() -> None:
    history = History(ChildSpec(A, Scripted, max_restarts=2, period_ms=1_000))  # type: ignore[arg-type]
    assert [history.exceeds(t) for t in (0, 500, 1_000, 1_500, 1_900)] == [False, False, False, False, True]
    history.forget()
    assert not history.exceeds(1_950)


# Waits


def test_a_restart_waits_on_the_clock(scene: Scene) -> None:
    backoff = Backoff(min_ms=400, max_ms=1_600, jitter=0)
    armed: list[int] = []
    call_later = scene.clock.call_later
    scene.clock.call_later = lambda delay_ms, action: (armed.append(delay_ms), call_later(delay_ms, action))[1]  # type: ignore[method-assign]
    crash_loop(scene, backoff=backoff, poison_attempts=3, max_restarts=9)
    scene.tell(BAD, 1)
    scene.recorder.wait(ActorFailed)
    assert scene.status().state == "restarting"
    restarted = scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    waits = [e.downtime_ms for e in scene.recorder.of(ActorRestarted)]
    # How much longer it was away depends on the machine: its clock here goes on while threads start.
    assert all(wait >= least for wait, least in zip(waits, (400, 800, 1_600), strict=True))
    assert [delay_ms for delay_ms in armed if delay_ms >= 400] == [400, 800, 1_600]
    assert (restarted.epoch, restarted.restarts) == (4, 3)
    scene.settle()
    assert scene.handled() == [1]


def test_a_name_takes_messages_while_its_actor_is_away(scene: Scene) -> None:
    crash_loop(scene, backoff=Backoff(min_ms=1_000), poison_attempts=1)
    scene.tell(1, BAD, 2)
    scene.recorder.wait(ActorFailed)
    scene.tell(3, 4)
    assert scene.status().mailbox.must == 3
    assert not scene.system.wait_settled(0.01)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    assert scene.handled() == [1, 2, 3, 4]


# Poison


def test_a_poison_message_is_tried_again_then_kept_as_a_dead_letter(scene: Scene) -> None:
    tries = []
    scene.script.on_message[BAD] = lambda actor: (tries.append(actor.context.epoch), fail(ValueError("bad"))(actor))
    scene.start()
    scene.tell(1, BAD, 2)
    scene.settle()
    assert tries == [1, 2]
    assert scene.handled() == [1, 2]
    letter = scene.recorder.wait(DeadLetter)
    assert letter == DeadLetter("a", "Num", "ValueError: bad", 2, scene.clock.now_ms(), 1)
    assert scene.system.dead_letters() == (letter,)


def test_a_dead_letter_can_be_retried_or_dropped(scene: Scene) -> None:
    crash_loop(scene, poison_attempts=1, max_restarts=99)
    scene.tell(BAD, BAD)
    scene.recorder.wait(DeadLetter, count=2)
    assert [letter.number for letter in scene.system.dead_letters()] == [1, 2]
    assert scene.system.drop_dead_letter(2)
    assert not scene.system.drop_dead_letter(2)
    scene.script.on_message.clear()
    assert scene.system.retry_dead_letter(1)
    assert not scene.system.retry_dead_letter(1)
    scene.settle()
    assert scene.handled() == [BAD]
    assert scene.system.dead_letters() == ()


def test_a_dead_letter_that_its_name_refuses_is_kept_for_a_later_try(scene: Scene) -> None:
    crash_loop(scene, poison_attempts=1, max_restarts=2)
    scene.tell(BAD, BAD, BAD)
    scene.recorder.wait(ActorQuarantined)
    letters = scene.system.dead_letters()
    assert [letter.number for letter in letters] == [1, 2, 3]
    assert not scene.system.retry_dead_letter(2)
    assert scene.system.dead_letters() == letters
    scene.script.on_message.clear()
    assert scene.system.release(A)
    scene.recorder.wait(ActorRestarted, "a", count=3)
    assert scene.system.retry_dead_letter(2)
    scene.settle()
    assert scene.handled() == [BAD]
    assert [letter.number for letter in scene.system.dead_letters()] == [1, 3]


def test_a_dead_letter_for_which_its_name_has_no_room_is_kept(scene: Scene) -> None:
    begun, go = threading.Event(), threading.Event()
    scene.script.on_message[BAD] = fail(ValueError("bad"))
    scene.script.on_message[7] = lambda actor: (begun.set(), go.wait(WAIT_S))
    scene.start(spec(scene.script, poison_attempts=1, lane_bounds=small(must=1, put_timeout_ms=20)))
    scene.tell(BAD)
    letter = scene.recorder.wait(DeadLetter)
    scene.recorder.wait(ActorRestarted)
    scene.tell(7)
    assert begun.wait(WAIT_S)
    scene.tell(8)
    assert not scene.system.retry_dead_letter(1)
    assert scene.system.dead_letters() == (letter,)
    go.set()
    scene.settle()
    assert scene.handled() == [7, 8]


# Enough


def test_too_many_failures_quarantine_one_name_only(scene: Scene) -> None:
    crash_loop(scene, max_restarts=3, poison_attempts=99)
    scene.tell(BAD, 1, 2)
    event = scene.recorder.wait(ActorQuarantined)
    assert event.reason == "more than 3 failures in 30000 ms, last: ValueError: bad"
    assert len(scene.recorder.of(ActorFailed)) == 4
    assert scene.status().state == "quarantined"
    assert scene.status().mailbox.must == 3
    refused = scene.system.undelivered
    assert not scene.system.tell(A, Num(3)), "the name answers with refusals"
    assert scene.system.undelivered == refused + 1
    scene.tell(5, to=B)
    scene.settle()
    assert scene.handled("b") == [5]
    assert scene.escalated == []


def test_a_quarantine_ends_by_command_and_what_waited_is_handled(scene: Scene) -> None:
    crash_loop(scene, max_restarts=1, poison_attempts=99)
    scene.tell(BAD, 1)
    scene.recorder.wait(ActorQuarantined)
    assert not scene.system.release(B)
    assert not scene.system.release(Address("nobody"))
    scene.script.on_message.clear()
    assert scene.system.release(A)
    scene.recorder.wait(ActorRestarted, count=2)
    assert not scene.system.release(A)
    scene.tell(2)
    scene.settle()
    assert scene.handled() == [BAD, 1, 2]
    scene.script.on_message[BAD] = once(fail(ValueError("again")), epochs=3)
    scene.tell(BAD)
    scene.settle()
    assert scene.handled()[-1] == BAD, "the failures before the release are forgotten"


def test_failures_far_apart_are_forgiven(scene: Scene) -> None:
    crash_loop(scene, max_restarts=1, period_ms=1_000, poison_attempts=1)
    for n in range(1, 5):
        scene.tell(BAD)
        scene.recorder.wait(ActorRestarted, count=n)
        scene.clock.advance(1_000)
    assert scene.recorder.of(ActorQuarantined) == []


def test_a_start_that_always_fails_is_quarantined_and_the_others_start(scene: Scene) -> None:
    def on_started(actor: Scripted) -> None:
        if actor.context.address == A:
            raise ConnectionError("no store")

    scene.script.on_started = on_started
    scene.start(spec(scene.script, max_restarts=2), spec(scene.script, B))
    scene.recorder.wait(ActorQuarantined, "a")
    assert {f.phase for f in scene.recorder.of(ActorFailed)} == {"start"}
    assert scene.recorder.wait(ActorStarted, "b")


# Kinds of children


def test_a_temporary_child_does_not_come_back(scene: Scene) -> None:
    go = threading.Event()
    scene.script.on_message[1] = lambda _: go.wait(30)
    crash_loop(scene, restart=Restart.TEMPORARY, poison_attempts=1)
    scene.tell(1, BAD, 2)
    go.set()
    scene.recorder.wait(ActorStopped, "a")
    scene.recorder.wait(DeadLetter, count=2)
    assert not scene.system.tell(A, Num(3))
    assert [(x.message_type, x.attempts, x.error) for x in scene.system.dead_letters()] == [
        ("Num", 1, "ValueError: bad"),
        ("Num", 0, "stopped before it was handled"),
    ]
    assert scene.system.wait_settled(0)
    assert scene.status().state == "stopped"


def test_a_transient_child_comes_back_after_a_failure_only(scene: Scene) -> None:
    crash_loop(scene, restart=Restart.TRANSIENT, poison_attempts=1)
    scene.tell(BAD)
    scene.recorder.wait(ActorRestarted)
    scene.script.on_message[1] = lambda actor: actor.stop()
    scene.tell(1)
    scene.recorder.wait(ActorStopped, "a")


# Groups


def group(scene: Scene, strategy: Strategy, **fields: object) -> Scene:
    scene.script.on_message[BAD] = once(fail(ValueError("bad")))
    scene.start(*(spec(scene.script, name, **fields) for name in (A, B, C)), strategy=strategy)
    return scene


@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [
        (Strategy.ONE_FOR_ONE, {"a": 1, "b": 2, "c/x": 1}),
        (Strategy.REST_FOR_ONE, {"a": 1, "b": 2, "c/x": 2}),
        (Strategy.ONE_FOR_ALL, {"a": 2, "b": 2, "c/x": 2}),
    ],
)
def test_who_restarts_with_whom(scene: Scene, strategy: Strategy, epochs: dict[str, int]) -> None:
    group(scene, strategy)
    started = len(scene.recorder.events)
    scene.tell(BAD, 1, to=B)
    expected = sum(e - 1 for e in epochs.values())
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=expected)
    for name in (A, B, C):
        scene.tell(2, to=name)
    scene.settle()
    assert {s.name: s.epoch for s in scene.system.tree()[1:]} == epochs
    assert scene.handled("b") == [BAD, 1, 2]
    restarted = [e.name for e in scene.recorder.of(ActorRestarted)]
    assert restarted == sorted(restarted), "in start order"
    assert names(scene.recorder.events[started:])[0] == "ActorFailed"
    assert len(scene.recorder.of(ActorFailed)) == 1


def test_a_group_stops_last_started_first_and_keeps_what_waits(scene: Scene) -> None:
    busy, go = threading.Event(), threading.Event()
    order: list[str] = []
    scene.script.on_stopped = lambda actor: order.append(str(actor.context.address))
    scene.script.on_message[1] = lambda _: (busy.set(), go.wait(30))
    group(scene, Strategy.ONE_FOR_ALL)
    scene.tell(1, 2, 3, to=C)
    assert busy.wait(30)
    scene.tell(BAD, to=A)
    scene.recorder.wait(ActorFailed)
    go.set()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    scene.settle()
    assert order == ["c/x", "b"]
    assert scene.handled("c/x") == [1, 2, 3]
    assert [e[1] for e in scene.script.log.entries if e[0] == "c/x"] == [1, 2, 2]


def test_a_sibling_that_will_not_stop_is_abandoned(scene: Scene) -> None:
    busy, go = threading.Event(), threading.Event()
    scene.script.on_message[1] = once(lambda _: (busy.set(), go.wait(60)))
    group(scene, Strategy.ONE_FOR_ALL, stop_deadline_ms=20_000)
    scene.tell(1, to=C)
    assert busy.wait(30)
    scene.tell(BAD, to=A)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    go.set()
    scene.settle()
    assert scene.status("c/x").abandoned == 1
    assert [e[1] for e in scene.script.log.entries if e == ("c/x", 2, Num(1))] == [2]


def test_a_temporary_sibling_is_not_brought_back(scene: Scene) -> None:
    scene.script.on_message[BAD] = once(fail(ValueError("bad")))
    scene.start(
        spec(scene.script, A),
        spec(scene.script, B, restart=Restart.TEMPORARY),
        strategy=Strategy.ONE_FOR_ALL,
    )
    scene.tell(BAD)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    assert scene.recorder.wait(ActorStopped).name == "b"


def test_a_sibling_that_fails_during_a_group_restart_does_not_stall_it(scene: Scene) -> None:
    def on_started(actor: Scripted) -> None:
        if actor.context.address == B and actor.context.epoch == 2:
            raise ValueError("not yet")

    group(scene, Strategy.ONE_FOR_ALL)
    scene.script.on_started = on_started
    scene.tell(BAD, to=A)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "c/x")
    for name in (A, B, C):
        scene.tell(2, to=name)
    scene.settle()
    assert {s.state for s in scene.system.tree()} == {"running"}


def test_a_sibling_that_comes_up_after_it_was_to_stop_is_not_forgotten(scene: Scene) -> None:
    starting, go = threading.Event(), threading.Event()

    def on_started(actor: Scripted) -> None:
        if actor.context.address == C and actor.context.epoch == 2:
            starting.set()
            assert go.wait(30)

    scene.script.on_started = on_started
    group(scene, Strategy.ONE_FOR_ALL, poison_attempts=1)
    scene.script.on_message[BAD] = once(fail(ValueError("bad")), epochs=2)
    scene.tell(BAD)
    for _ in range(2_000):
        scene.clock.advance(1)
        if starting.wait(0.005):
            break
    scene.tell(BAD)
    scene.recorder.wait(ActorFailed, count=2)
    go.set()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "c/x", count=2)
    for name in (A, B, C):
        scene.tell(2, to=name)
    scene.settle()
    assert {s.name: s.epoch for s in scene.system.tree()[1:]} == {"a": 3, "b": 3, "c/x": 3}


def test_systems_may_hold_several_groups(scene: Scene) -> None:
    scene.start(spec(scene.script, A))
    scene.start(spec(scene.script, B), strategy=Strategy.ONE_FOR_ALL)
    with pytest.raises(ValueError, match="taken"):
        scene.system.start([spec(scene.script, A)])
    with pytest.raises(ValueError, match="taken"):
        scene.system.start([spec(scene.script, Address("supervisor"))])
    scene.tell(1)
    scene.tell(2, to=B)
    scene.settle()
    scene.system.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        scene.system.start([spec(scene.script, C)])


def test_a_sender_that_fails_on_a_full_must_lane_is_a_failed_actor(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    go = threading.Event()
    scene.script.on_message[1] = lambda _: go.wait(30)
    scene.script.on_message[2] = once(lambda actor: [actor.context.tell(B, Num(n)) for n in (1, 7, 8)])
    scene.start(spec(scene.script, A), spec(scene.script, B, lane_bounds=small(must=1, put_timeout_ms=20)))
    scene.tell(2)
    failed = scene.recorder.wait(ActorFailed, "a")
    go.set()
    assert failed.error == "MailboxFull: 1 messages wait in the must lane"
    assert scene.recorder.of(ActorFailed, "b") == []
    scene.settle()
