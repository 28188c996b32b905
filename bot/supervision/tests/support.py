"""What the tests of supervision share: a message, an actor that does as told, a recorder to wait on, a system."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import (
    Actor,
    ActorSystem,
    Address,
    Backoff,
    ChildSpec,
    Context,
    Event,
    Lane,
    LaneBounds,
    Strategy,
    SystemClock,
)
from ..testing import ManualClock

WAIT_S = 30.0
A, B, C = Address("a"), Address("b"), Address("c", "x")


@dataclass(frozen=True, slots=True)
class Num:
    """A message; MUST."""

    n: int


@dataclass(frozen=True, slots=True)
class Price:
    """A message; STREAM."""

    n: int


@dataclass(frozen=True, slots=True)
class Halt:
    """A message; CONTROL."""

    n: int = 0


LANES: Mapping[type, Lane] = {Price: Lane.STREAM, Halt: Lane.CONTROL}


class Recorder:
    """Events in the order in which they came, to be waited on."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Any) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type, name: str | None = None) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and (name is None or e.name == name)]

    def wait(self, kind: type, name: str | None = None, count: int = 1, timeout_s: float = WAIT_S) -> Any:
        """Return the `count`-th event of that kind and name, waiting for it."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.of(kind, name)) >= count, timeout_s):
                raise AssertionError(f"no {count} x {kind.__name__} of {name}: {self.events}")
            return self.of(kind, name)[count - 1]

    def wait_advancing(self, clock: ManualClock, kind: type, name: str | None = None, count: int = 1) -> Any:
        """As `wait`, moving the clock on by 50 ms again and again, as time would."""
        for _ in range(4_000):
            if len(self.of(kind, name)) >= count:
                return self.of(kind, name)[count - 1]
            clock.advance(50)
            with self._changed:
                self._changed.wait_for(lambda: len(self.of(kind, name)) >= count, 0.002)
        raise AssertionError(f"no {count} x {kind.__name__} of {name}: {self.events}")


class Log:
    """What actors handled, as (name, epoch, message), to be waited on."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int, Any]] = []
        self._changed = threading.Condition()

    def add(self, context: Context, message: Any) -> None:
        with self._changed:
            self.entries.append((str(context.address), context.epoch, message))
            self._changed.notify_all()

    def messages(self, name: str = "a") -> list[Any]:
        return [entry[2] for entry in self.entries if entry[0] == name]

    def wait(self, message: Any, name: str = "a") -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: message in self.messages(name), WAIT_S), self.entries


class Script:
    """What the actors of a test do: `on_message[n]` runs instead of logging the message with that n."""

    def __init__(self) -> None:
        self.log = Log()
        self.on_message: dict[int, Callable[[Scripted], object]] = {}
        self.on_started: Callable[[Scripted], None] = lambda actor: None
        self.on_stopped: Callable[[Scripted], None] = lambda actor: None
        self.made: list[Scripted] = []

    def actor(self, context: Context) -> "Scripted":
        self.made.append(Scripted(context, self))
        return self.made[-1]


class Scripted(Actor):
    def __init__(self, context: Context, script: Script) -> None:
        super().__init__(context)
        self.script = script

    def started(self) -> None:
        self.script.on_started(self)

    def handle(self, message: Any) -> object:
        action = self.script.on_message.get(getattr(message, "n", -1))
        result = None if action is None else action(self)
        self.script.log.add(self.context, message)
        return result

    def stopped(self) -> None:
        self.script.on_stopped(self)


def once(action: Callable[[Scripted], object], epochs: int = 1) -> Callable[[Scripted], object]:
    """Return `action` for the first `epochs` incarnations only."""
    return lambda actor: action(actor) if actor.context.epoch <= epochs else None


def fail(error: BaseException) -> Callable[[Scripted], object]:
    """Return an action that raises."""

    def action(actor: Scripted) -> object:
        raise error

    return action


NO_WAIT = Backoff(min_ms=0, max_ms=0)
PATIENT = {"handler_deadline_ms": 10_000_000, "start_deadline_ms": 10_000_000, "stop_deadline_ms": 10_000_000}


def spec(script: Script, address: Address = A, **fields: Any) -> ChildSpec:
    """Return the spec of a child whose deadlines are no test's business unless it gives them.

    A clock that is moved on while threads do something runs faster than time: one thread of a busy machine that
    stands still for a moment must not be taken for one that hangs.
    """
    return ChildSpec(address, script.actor, **{"backoff": NO_WAIT, **PATIENT, **fields})


class Scene:
    """A system with one script, on a clock moved by hand or, if `real`, on the machine's."""

    def __init__(self, real: bool = False, **options: Any) -> None:
        self.clock = ManualClock()
        self.script = Script()
        self.recorder = Recorder()
        self.escalated: list[str] = []
        self.escalation = threading.Event()
        self.system = ActorSystem(
            SystemClock() if real else self.clock,
            lanes=LANES,
            rng=random.Random(1),
            on_event=self.recorder,
            on_escalate=self._escalate,
            **options,
        )

    system_name = Address("supervisor")

    def _escalate(self, reason: str) -> None:
        self.escalated.append(reason)
        self.escalation.set()

    def start(self, *specs: ChildSpec, strategy: Strategy = Strategy.ONE_FOR_ONE) -> "Scene":
        self.system.start(specs or [spec(self.script)], strategy)
        return self

    def tell(self, *numbers: int, to: Address = A) -> None:
        for n in numbers:
            assert self.system.tell(to, Num(n))

    def settle(self) -> None:
        assert self.system.wait_settled(WAIT_S), self.system.tree()

    def handled(self, name: str = "a") -> list[int]:
        return [message.n for message in self.script.log.messages(name)]

    def status(self, name: str = "a") -> Any:
        return next(s for s in self.system.tree() if s.name == name)


def small(must: int = 3, stream: int = 2, put_timeout_ms: int = 50) -> LaneBounds:
    return LaneBounds(must=must, stream=stream, put_timeout_ms=put_timeout_ms)


def names(events: Sequence[Any]) -> list[str]:
    return [type(event).__name__ for event in events]
