"""What stock pykka does in each case that supervision works around: an upgrade that changes it is to be seen."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

WAIT_S = 30.0

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Stock(pykka.ThreadingActor):
    """Raises `error` in the hook named `where`, and notes which hooks ran."""

    use_daemon_thread = True

    def __init__(self, where: str = "", error: BaseException | None = None) -> None:
        super().__init__()
        self.where = where
        self.failure_fails = False
        self.error = error
        self.calls: list[str] = []
        self.registered_in_on_failure = False
        self.thread: threading.Thread | None = None
        self.entered = threading.Event()
        self.go = threading.Event()
        self._at("__init__")

    def _at(self, hook: str) -> None:
        self.calls.append(hook)
        if hook == self.where and self.error is not None:
            raise self.error

    def on_start(self) -> None:
        self.thread = threading.current_thread()
        self.entered.set()
        self._at("on_start")

    def on_receive(self, message: Any) -> Any:
        if message == "wait":
            self.entered.set()
            assert self.go.wait(WAIT_S)
        elif message == "bad":
            self._at("on_receive")
        return message

    def on_stop(self) -> None:
        self._at("on_stop")

    def on_failure(self, *_: Any) -> None:
        self.calls.append("on_failure")
        self.registered_in_on_failure = self.actor_ref in pykka.ActorRegistry.get_all()
        if self.failure_fails:
            raise RuntimeError("in on_failure")


ORDINARY = [ValueError("x"), MemoryError()]
BASE = [SystemExit("x")]


@pytest.fixture(autouse=True)
def _tidy_registry() -> Iterator[None]:
    yield
    for ref in pykka.ActorRegistry.get_all():
        ref.stop(block=False)
        pykka.ActorRegistry.unregister(ref)


def start(where: str, error: BaseException) -> tuple[pykka.ActorRef[Stock], Stock]:
    ref = Stock.start(where, error)
    actor = ref._actor_weakref()
    assert actor is not None
    assert actor.entered.wait(WAIT_S)
    return ref, actor


def end(actor: Stock) -> None:
    assert actor.thread is not None
    actor.thread.join(WAIT_S)
    assert not actor.thread.is_alive()


def alive(ref: pykka.ActorRef[Stock]) -> bool:
    return ref.is_alive() and ref in pykka.ActorRegistry.get_all()


@pytest.mark.parametrize("error", ORDINARY + BASE)
def test_init_raises_in_the_caller(error: BaseException) -> None:
    with pytest.raises(type(error)):
        Stock.start("__init__", error)
    assert pykka.ActorRegistry.get_all() == []


@pytest.mark.parametrize("error", ORDINARY)
def test_on_start_exception_unregisters_without_on_failure(error: BaseException) -> None:
    ref, actor = start("on_start", error)
    end(actor)
    assert not alive(ref)
    assert actor.calls == ["__init__", "on_start"]


@pytest.mark.parametrize("error", BASE)
def test_on_start_base_exception_leaves_a_zombie(error: BaseException) -> None:
    ref, actor = start("on_start", error)
    end(actor)
    assert alive(ref), "registered and said to be alive, with no thread"
    ref.tell("into the void")
    assert not actor.actor_inbox.empty()


@pytest.mark.parametrize("error", ORDINARY)
def test_tell_exception_drops_what_waits_and_unregisters_before_on_failure(error: BaseException) -> None:
    ref, actor = start("on_receive", error)
    ref.tell("wait")
    ref.tell("bad")
    ref.tell("lost")
    lost = ref.ask("lost", block=False)
    actor.go.set()
    with pytest.raises(pykka.ActorDeadError):
        lost.get(timeout=WAIT_S)
    end(actor)
    assert actor.calls[-2:] == ["on_receive", "on_failure"]
    assert not actor.registered_in_on_failure
    assert actor.actor_inbox.empty()


@pytest.mark.parametrize("error", BASE)
def test_tell_base_exception_stops_every_actor(error: BaseException) -> None:
    _, other = start("", ValueError())
    ref, actor = start("on_receive", error)
    ref.tell("bad")
    end(actor)
    end(other)
    assert other.calls == ["__init__", "on_start", "on_stop"]
    assert actor.calls == ["__init__", "on_start", "on_receive", "on_stop"]
    assert pykka.ActorRegistry.get_all() == []


@pytest.mark.parametrize("error", ORDINARY)
def test_ask_exception_goes_to_the_asker_and_the_actor_lives_on(error: BaseException) -> None:
    ref, actor = start("on_receive", error)
    with pytest.raises(type(error)):
        ref.ask("bad", timeout=WAIT_S)
    assert alive(ref)
    assert ref.ask("good", timeout=WAIT_S) == "good"
    assert "on_failure" not in actor.calls


@pytest.mark.parametrize("error", BASE)
def test_ask_base_exception_is_never_answered(error: BaseException) -> None:
    ref, actor = start("on_receive", error)
    answer = ref.ask("bad", block=False)
    end(actor)
    with pytest.raises(pykka.Timeout):
        answer.get(timeout=0.01)


@pytest.mark.parametrize("error", ORDINARY)
def test_on_stop_exception_is_swallowed(error: BaseException) -> None:
    ref, actor = start("on_stop", error)
    assert ref.stop(timeout=WAIT_S)
    end(actor)
    assert actor.calls.count("on_stop") == 1


@pytest.mark.parametrize("error", BASE)
def test_on_stop_base_exception_runs_it_twice_and_the_stopper_waits(error: BaseException) -> None:
    ref, actor = start("on_stop", error)
    with contextlib.suppress(pykka.Timeout):
        ref.stop(timeout=0.01)
        raise AssertionError("the stopper got an answer")
    end(actor)
    assert actor.calls.count("on_stop") == 2


def test_on_failure_exception_is_swallowed() -> None:
    ref, actor = start("on_receive", ValueError())
    actor.failure_fails = True
    ref.tell("bad")
    end(actor)
    assert not alive(ref)


def test_a_proxy_call_bypasses_on_receive() -> None:
    ref, actor = start("on_receive", ValueError())
    assert ref.proxy().where.get(timeout=WAIT_S) == "on_receive"
    assert actor.calls == ["__init__", "on_start"]
    assert ref.stop(timeout=WAIT_S)


def test_stop_goes_behind_what_waits() -> None:
    ref, actor = start("", ValueError())
    ref.tell("wait")
    answer = ref.ask("before", block=False)
    stopped = ref.stop(block=False)
    actor.go.set()
    assert answer.get(timeout=WAIT_S) == "before"
    assert stopped.get(timeout=WAIT_S)
    end(actor)
