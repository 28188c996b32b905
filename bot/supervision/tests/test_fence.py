"""A hung actor is a failed actor: it is replaced, and what it tries when it wakes up late is refused."""

import threading
from collections.abc import Callable

import pykka
import pytest

from .. import (
    ActorCrashed,
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    Backoff,
    DeadLetter,
    Fenced,
)
from .support import WAIT_S, A, B, Num, Scene, Scripted, fail, once, spec


class Hang:
    """An action that waits until it is let go, then runs `then`; says when each is reached."""

    def __init__(self, then: Callable[[Scripted], object] = lambda actor: None) -> None:
        self.then = then
        self.begun = threading.Event()
        self.go = threading.Event()
        self.woken = threading.Event()
        self.errors: list[BaseException] = []

    def __call__(self, actor: Scripted) -> None:
        self.begun.set()
        assert self.go.wait(WAIT_S * 3)
        try:
            self.then(actor)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.woken.set()

    def wait(self) -> None:
        assert self.begun.wait(WAIT_S)


def hang(scene: Scene, then: Callable[[Scripted], object] = lambda actor: None, **fields: object) -> Hang:
    """Start a and b; a hangs in its first incarnation's message 1 and has been replaced when this returns."""
    action = Hang(then)
    scene.script.on_message[1] = once(action)
    scene.start(spec(scene.script, handler_deadline_ms=10_000, **fields), spec(scene.script, B))
    scene.tell(1, 2)
    action.wait()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    return action


def wake(scene: Scene, action: Hang) -> None:
    """Let the old incarnation run and wait until its thread is gone."""
    old = scene.script.made[0].context.thread  # type: ignore[attr-defined]
    action.go.set()
    old.join(WAIT_S)
    assert not old.is_alive()


def test_a_hung_actor_is_replaced_and_its_message_tried_again(scene: Scene) -> None:
    action = hang(scene)
    scene.settle()
    assert [e[1:] for e in scene.script.log.entries] == [(2, Num(1)), (2, Num(2))]
    failed = scene.recorder.wait(ActorFailed)
    assert (failed.phase, failed.message_type) == ("hang", "Num")
    assert failed.error.startswith("hung: in one handler for 1")
    assert scene.status().abandoned == 1
    wake(scene, action)


def test_woken_late_it_takes_nothing_tells_nothing_and_is_counted(scene: Scene) -> None:
    effects: list[str] = []

    def then(actor: Scripted) -> None:
        context = actor.context
        assert not context.is_current()
        for attempt in (
            lambda: context.tell(B, Num(50)),
            lambda: context.run_fenced(lambda: effects.append("order sent")),
            context.check_fence,
            lambda: context.after(1, Num(51)),
            lambda: context.watch(B),
            lambda: context.spawn_thread("late", lambda: effects.append("thread")),
            lambda: context.tell(spec(actor.script).address, Num(52)),
        ):
            with pytest.raises(Fenced):
                attempt()

    action = hang(scene, then)
    wake(scene, action)
    assert action.errors == []
    scene.clock.advance(1_000)
    scene.settle()
    assert effects == []
    assert scene.handled("b") == []
    assert [e for e in scene.script.log.entries if e[0] == "a"] == [
        ("a", 2, Num(1)),
        ("a", 2, Num(2)),
        ("a", 1, Num(1)),  # its handler returned, and that was all it could do
    ]
    assert scene.system.refused_effects == 7
    assert len(scene.recorder.of(ActorFailed)) == 1


@pytest.mark.parametrize("error", [ValueError("late"), SystemExit(1)])
def test_what_it_raises_late_concerns_nobody(
    scene: Scene, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    action = hang(scene, fail(error))
    wake(scene, action)
    assert action.errors == [error]
    assert not [record for record in caplog.records if record.name == "pykka"], "not even a line in the log"
    scene.tell(3)
    scene.settle()
    assert scene.handled()[-1] == 3
    assert len(scene.recorder.of(ActorFailed)) == 1
    assert scene.status("b").epoch == 1


def test_an_order_is_not_sent_twice_by_one_that_hung_in_its_order_call(scene: Scene) -> None:
    """The successor orders; the old one wakes up in the midst of its order call and is refused at the gate."""
    orders: list[int] = []

    def order(actor: Scripted) -> None:
        actor.context.run_fenced(lambda: orders.append(actor.context.epoch))

    action = Hang(order)
    scene.script.on_message[1] = lambda actor: action(actor) if actor.context.epoch == 1 else order(actor)
    scene.start(spec(scene.script, handler_deadline_ms=10_000))
    scene.tell(1)
    action.wait()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    wake(scene, action)
    assert orders == [2]
    assert isinstance(action.errors[0], Fenced)


def test_the_epoch_cannot_be_followed_while_an_effect_runs(scene: Scene) -> None:
    """An effect that is slow beyond the deadline ends the epoch, but the next one waits until it is over."""
    inside, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def effect() -> None:
        inside.set()
        assert go.wait(WAIT_S)
        seen.append("effect")

    scene.script.on_message[1] = once(lambda actor: actor.context.run_fenced(effect))
    scene.script.on_started = lambda actor: seen.append(f"epoch {actor.context.epoch}")
    scene.start(spec(scene.script, handler_deadline_ms=10_000, start_deadline_ms=60_000))
    scene.tell(1)
    assert inside.wait(WAIT_S)
    scene.recorder.wait_advancing(scene.clock, ActorFailed)
    with pytest.raises(AssertionError, match="no 1 x ActorRestarted"):
        scene.recorder.wait(ActorRestarted, timeout_s=0.05)
    go.set()
    scene.recorder.wait(ActorRestarted)
    assert seen == ["epoch 1", "effect", "epoch 2"]


def test_an_effect_that_never_ends_keeps_the_name_down_and_nothing_else(scene: Scene) -> None:
    inside, go = threading.Event(), threading.Event()
    scene.script.on_message[1] = lambda actor: actor.context.run_fenced(lambda: (inside.set(), go.wait(WAIT_S * 3)))
    scene.start(
        spec(scene.script, handler_deadline_ms=5_000, start_deadline_ms=5_000, max_restarts=2), spec(scene.script, B)
    )
    scene.tell(1)
    assert inside.wait(WAIT_S)
    scene.recorder.wait_advancing(scene.clock, ActorQuarantined)
    assert [f.phase for f in scene.recorder.of(ActorFailed)] == ["hang", "start", "start"]
    assert [actor.context.epoch for actor in scene.script.made] == [1, 1], "no successor was even made"
    scene.tell(5, to=B)
    scene.script.log.wait(Num(5), "b")
    go.set()


def test_a_hang_in_started_is_a_failure_at_start(scene: Scene) -> None:
    action = Hang()
    scene.script.on_started = once(action)  # type: ignore[assignment]
    starter = threading.Thread(target=lambda: scene.start(spec(scene.script, start_deadline_ms=20_000)))
    starter.start()
    action.wait()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    starter.join(WAIT_S)
    assert scene.recorder.of(ActorFailed)[0].phase == "start"
    scene.tell(1)
    scene.settle()
    wake(scene, action)
    assert scene.handled() == [1]


def test_one_that_starts_too_late_is_not_taken_for_running(scene: Scene) -> None:
    action = Hang()
    scene.script.on_started = once(action)  # type: ignore[assignment]
    late = Backoff(min_ms=600_000, max_ms=600_000)
    child = spec(scene.script, start_deadline_ms=10_000, backoff=late)
    starter = threading.Thread(target=lambda: scene.start(child))
    starter.start()
    action.wait()
    scene.recorder.wait_advancing(scene.clock, ActorFailed)
    starter.join(WAIT_S)
    wake(scene, action)
    scene.start(spec(scene.script, B))  # the supervisor has worked off its reports once b is up
    assert scene.status().state == "restarting"
    assert scene.recorder.of(ActorStarted, "a") == scene.recorder.of(ActorRestarted) == []
    scene.clock.advance(600_000)
    assert scene.recorder.wait(ActorRestarted).epoch == 2


def test_a_hang_in_the_factory_holds_nobody_up(scene: Scene) -> None:
    go, made = threading.Event(), []

    def factory(context: object) -> Scripted:
        made.append(1)
        if len(made) == 1:
            assert go.wait(WAIT_S)
        return scene.script.actor(context)  # type: ignore[arg-type]

    base = spec(scene.script)
    child = type(base)(A, factory, start_deadline_ms=10_000, backoff=base.backoff)
    starter = threading.Thread(target=lambda: scene.start(child, spec(scene.script, B)))
    starter.start()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, "a")
    starter.join(WAIT_S)
    go.set()
    scene.tell(1)
    scene.settle()
    assert scene.script.log.entries == [("a", 2, Num(1))]


def test_a_message_that_always_hangs_becomes_a_dead_letter(scene: Scene) -> None:
    actions = [Hang(), Hang()]
    scene.script.on_message[1] = lambda actor: actions[actor.context.epoch - 1](actor)
    scene.start(spec(scene.script, handler_deadline_ms=10_000))
    scene.tell(1, 2)
    letter = scene.recorder.wait_advancing(scene.clock, DeadLetter)
    assert letter.attempts == 2
    scene.settle()
    assert scene.handled() == [2]
    for action in actions:
        action.go.set()


def test_an_asker_of_a_hung_actor_is_answered(scene: Scene) -> None:
    action = Hang()
    scene.script.on_message[1] = once(action)
    scene.start(spec(scene.script, handler_deadline_ms=10_000))
    answers: list[BaseException] = []

    def ask() -> None:
        try:
            scene.system.ask(A, Num(1), WAIT_S)
        except (ActorCrashed, pykka.Timeout) as error:
            answers.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    action.wait()
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    asker.join(WAIT_S)
    assert isinstance(answers[0], ActorCrashed)
    wake(scene, action)


def test_idle_and_busy_actors_are_not_taken_for_hung(scene: Scene) -> None:
    """A long idle time is no hang, nor is a queue that is never empty while its messages are short."""
    scene.start(spec(scene.script, handler_deadline_ms=10_000))
    scene.tell(1)
    scene.settle()
    scene.clock.advance(100_000)
    for n in range(2, 30):
        scene.tell(n)
        scene.settle()
        scene.clock.advance(300)
    assert scene.recorder.of(ActorFailed) == []


def test_one_look_alone_blames_nobody(scene: Scene) -> None:
    """After the whole process stood still, every message in hand is old at the first look."""
    action = Hang()
    scene.script.on_message[1] = once(action)
    scene.start(spec(scene.script, handler_deadline_ms=10_000))
    scene.tell(1)
    action.wait()
    looks = threading.Semaphore(0)
    look = scene.system._supervision.look

    def counted() -> None:
        look()
        looks.release()

    scene.system._supervision.look = counted  # type: ignore[method-assign]
    scene.clock._now_ms += 60_000  # the process was stopped
    scene.system._supervision.request_look()
    assert looks.acquire(timeout=WAIT_S)
    action.go.set()
    scene.settle()
    scene.system._supervision.request_look()
    assert looks.acquire(timeout=WAIT_S)
    assert scene.recorder.of(ActorFailed) == []


def test_ending_an_epoch_runs_its_actions_once(scene: Scene) -> None:
    closed: list[str] = []
    done = threading.Event()

    def on_started(actor: Scripted) -> None:
        context = actor.context
        if context.epoch == 1:
            context.on_epoch_end(lambda: closed.append("socket"))
            context.on_epoch_end(lambda: fail(ValueError("cannot close"))(actor))
            context.on_epoch_end(lambda: (closed.append("file"), done.set()))

    scene.script.on_started = on_started
    action = hang(scene, lambda actor: actor.context.on_epoch_end(lambda: closed.append("at once")))
    assert done.wait(WAIT_S)
    assert closed == ["socket", "file"]
    wake(scene, action)
    assert closed == ["socket", "file", "at once"]


def test_an_action_at_the_end_that_hangs_holds_nobody_up(scene: Scene) -> None:
    """A socket that will not close: the supervisor goes on, and after a second so does the name."""
    go = threading.Event()

    def on_started(actor: Scripted) -> None:
        if actor.context.epoch == 1:
            actor.context.on_epoch_end(lambda: go.wait(WAIT_S * 3) and None)

    scene.script.on_started = on_started
    action = hang(scene)
    scene.settle()
    assert scene.handled() == [1, 2]
    scene.system.kill(B, "raise")
    scene.tell(5, to=B)
    scene.settle()
    go.set()
    wake(scene, action)


def test_effects_and_the_end_of_an_epoch_never_interleave(scene: Scene) -> None:
    """Many effects race with the end: each ran wholly before the successor was made, or was refused."""
    ended = threading.Event()
    late: list[int] = []

    def spin(actor: Scripted) -> None:
        context = actor.context
        while True:
            context.run_fenced(lambda: late.append(1) if ended.is_set() else None)

    def on_started(actor: Scripted) -> None:
        if actor.context.epoch == 2:
            ended.set()

    scene.script.on_started = on_started
    scene.script.on_message[1] = once(spin)
    scene.start(spec(scene.script, handler_deadline_ms=5_000))
    scene.tell(1)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted)
    scene.settle()
    assert late == []
