"""Actors that may die: names that outlive them, mailboxes, restarts, fences. Knows nothing of what they are for."""

from pykka.debug import log_thread_tracebacks

from .actor import Actor
from .address import Address
from .context import Context
from .errors import ActorCrashed, ChaosKill, Fenced, KillRefused, MailboxFull, NotRunning
from .events import (
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    DeadLetter,
    Event,
    Terminated,
)
from .lanes import Lane
from .spec import Backoff, ChildSpec, Exceeded, LaneBounds, Restart, Strategy
from .system import ActorSystem
from .timers import Clock, SystemClock, Timer
from .tree import ActorStatus, Depth

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorFailed",
    "ActorQuarantined",
    "ActorRestarted",
    "ActorStarted",
    "ActorStatus",
    "ActorStopped",
    "ActorSystem",
    "Address",
    "Backoff",
    "ChaosKill",
    "ChildSpec",
    "Clock",
    "Context",
    "DeadLetter",
    "Depth",
    "Event",
    "Exceeded",
    "Fenced",
    "KillRefused",
    "Lane",
    "LaneBounds",
    "MailboxFull",
    "NotRunning",
    "Restart",
    "Strategy",
    "SystemClock",
    "Terminated",
    "Timer",
    "log_thread_tracebacks",
]
