"""Decides what an actor may ask of the world: one Protocol, so that a test hands in a recording one."""

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from .address import Address
from .timers import Clock, Timer

T = TypeVar("T")


class Context(Protocol):
    """One incarnation's hold on its name, for as long as its epoch lasts."""

    @property
    def address(self) -> Address:
        """The name that the actor serves."""

    @property
    def epoch(self) -> int:
        """Which incarnation of the name this is, from 1."""

    @property
    def clock(self) -> Clock:
        """The clock that everything timed goes by."""

    def tell(self, to: Address, message: object) -> bool:
        """Leave `message` for `to`; True if it was taken, False if its stream lane is full or the name takes none.

        Never raises because the other died. Raises MailboxFull if a must lane stays full for its put timeout, and
        Fenced, counted, if this epoch is over.
        """

    def after(self, delay_ms: int, message: object) -> Timer:
        """Put `message` into the own control lane in `delay_ms`, unless this epoch is over by then."""

    def is_current(self) -> bool:
        """Return whether this epoch lasts; takes no lock."""

    def check_fence(self) -> None:
        """Raise Fenced, counted, if this epoch is over."""

    def run_fenced(self, effect: Callable[[], T]) -> T:
        """Return `effect()`, run so that this epoch cannot end meanwhile; it must be short.

        Raises Fenced, counted, if this epoch is over. The next incarnation does not start before it returns.
        """

    def spawn_thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Start a daemon thread that belongs to this incarnation: if it raises, the actor has failed.

        `target` has to return soon after `is_current()` turned False.
        """

    def watch(self, address: Address) -> None:
        """Have `Terminated` come in the control lane whenever an incarnation of `address` ends."""

    def on_epoch_end(self, action: Callable[[], None]) -> None:
        """Run `action` once when this epoch ends, on whichever thread ends it; at once if it is over already."""

    def set_state(self, state: str) -> None:
        """Show "recovering" or "running" in the tree. Raises ValueError for other words."""
