"""Decides what the outside hears about actors: typed facts, each with its name as text and UTC milliseconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ActorStarted:
    """An actor came up for the first time."""

    name: str
    epoch: int
    kind: str
    time: int


@dataclass(frozen=True, slots=True)
class ActorStopped:
    """An actor ended for good; `abandoned` if its thread would not stop and was left behind, fenced."""

    name: str
    epoch: int
    kind: str
    time: int
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class ActorFailed:
    """An incarnation died.

    `phase` is one of start, handle, stop, thread (one that it owned), hang, vanish. `message_type` is the type of
    the message in hand, or empty.
    """

    name: str
    epoch: int
    phase: str
    message_type: str
    error: str
    time: int


@dataclass(frozen=True, slots=True)
class ActorRestarted:
    """A new incarnation is up, `downtime_ms` after the last one ended."""

    name: str
    epoch: int
    restarts: int
    downtime_ms: int
    time: int


@dataclass(frozen=True, slots=True)
class ActorQuarantined:
    """An actor failed too often; until it is released its stand-in serves the name, if it has one, else nobody does.

    Comes a second time if the stand-in failed too often as well: nobody serves the name from then on.
    """

    name: str
    reason: str
    time: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up: it killed its handler `attempts` times, or its actor ended before it (0)."""

    name: str
    message_type: str
    error: str
    attempts: int
    time: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Terminated:
    """To a watcher: that incarnation ended, for `reason`. Epoch 0: the name was unknown or stopped already."""

    name: str
    epoch: int
    reason: str


Event = ActorStarted | ActorStopped | ActorFailed | ActorRestarted | ActorQuarantined | DeadLetter
EVENT_TYPES: tuple[type, ...] = (
    ActorStarted,
    ActorStopped,
    ActorFailed,
    ActorRestarted,
    ActorQuarantined,
    DeadLetter,
    Terminated,
)
