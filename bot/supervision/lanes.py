"""Decides how each kind of message queues."""

import enum
from collections.abc import Callable, Mapping
from typing import Final


class Lane(enum.Enum):
    """How a kind of message queues.

    CONTROL goes first and has no bound. MUST and STREAM share one order and have a bound each: a full must lane
    makes the sender wait, a full stream lane refuses at once.
    """

    CONTROL = "control"
    MUST = "must"
    STREAM = "stream"


CONTROL: Final = Lane.CONTROL
MUST: Final = Lane.MUST
STREAM: Final = Lane.STREAM


class LaneTable(dict[type, Lane]):
    """Message type -> lane, asked of `rule` once a type; a type that a mapping does not name is MUST.

    The types in `control` are CONTROL unless a mapping names them.
    """

    def __init__(self, rule: Callable[[type], Lane] | Mapping[type, Lane], control: tuple[type, ...] = ()) -> None:
        super().__init__(dict.fromkeys(control, CONTROL))
        if isinstance(rule, Mapping):
            self.update(rule)
            self._rule: Callable[[type], Lane] = lambda _: MUST
        else:
            self._rule = rule

    def __missing__(self, kind: type) -> Lane:
        lane = self[kind] = self._rule(kind)
        return lane
