"""Decides what one sees of the actors: read from cells that they write, so it works while all of them hang."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages wait in each lane; the one in hand is not counted."""

    control: int = 0
    must: int = 0
    stream: int = 0

    @property
    def total(self) -> int:
        """All that wait."""
        return self.control + self.must + self.stream


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """One actor as it is now. Durations in ms.

    `state` is starting, recovering, running, restarting, quarantined or stopped. `busy_ms` is the time in the
    current handler, 0 if idle; `last_done_ms` the time since a message was finished, None before the first.
    `abandoned` counts threads that were left behind, hung and fenced.
    """

    name: str
    kind: str
    state: str
    epoch: int
    restarts: int
    uptime_ms: int
    mailbox: Depth
    last_error: str
    busy_ms: int
    last_done_ms: int | None
    abandoned: int
