"""Decides how an actor lives inside pykka: what may kill it is caught here, so that it dies alone and is seen."""

import threading
from typing import Any, ClassVar

import pykka

from .context import Context
from .errors import ActorCrashed, ChaosKill
from .incarnation import Incarnation
from .mailbox import Fate
from .seat import Order


class Actor(pykka.ThreadingActor):
    """The base of every supervised actor: override `started`, `handle` and `stopped`, nothing else.

    Whatever they raise, SystemExit included, ends this incarnation only. A unit test makes the actor with a
    recording context and calls `handle`; no thread is involved.
    """

    use_daemon_thread: ClassVar[bool] = True
    context: Context

    def __init__(self, context: Context) -> None:
        self.context = context
        self._incarnation = context if isinstance(context, Incarnation) else None
        super().__init__()

    def started(self) -> None:
        """Prepare, on the actor's own thread, before the first message."""

    def handle(self, message: object) -> object:
        """Handle one message; what is returned answers an ask."""

    def stopped(self) -> None:
        """Clean up after the last message; only at an orderly stop."""

    # What pykka calls

    def _create_actor_inbox(self) -> Any:  # type: ignore[override]  # pykka's hook is static, a seat is not
        return super()._create_actor_inbox() if self._incarnation is None else self._incarnation.seat

    def __str__(self) -> str:
        return str(self._incarnation or self.context.address)

    def on_start(self) -> None:
        incarnation = self._live()
        incarnation.thread = threading.current_thread()
        incarnation.thread.name = str(incarnation.address)
        if not incarnation.is_current():
            self.leave()
            return
        try:
            self.started()
        except BaseException as error:
            self._die("start", error)
        else:
            incarnation.up()

    def on_receive(self, message: Any) -> None:
        incarnation = self._live()
        try:
            if message.__class__ is Order:
                self._obey(message)
                return
            result = self.handle(message)
        except BaseException as error:
            self._die("handle", error)
        else:
            if incarnation.seat.reply is not None:
                incarnation.answer(result)

    def on_stop(self) -> None:
        error: BaseException | None = None
        try:
            self.stopped()
        except BaseException as caught:
            error = caught
        incarnation = self._live()
        incarnation.answer(None)
        incarnation.end("stop", error, Fate.DONE)
        self.leave()

    # What supervision calls

    def launch(self) -> None:
        """Start the thread."""
        pykka.ActorRegistry.register(self.actor_ref)
        self._start_actor_loop()

    def leave(self) -> None:
        """Have pykka's loop end after the message in hand, without its own way of stopping."""
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()

    def _live(self) -> Incarnation:
        if self._incarnation is None:
            raise RuntimeError("a supervised actor is started by its ActorSystem")
        return self._incarnation

    def _die(self, phase: str, error: BaseException) -> None:
        mine = self._live().end(phase, error, Fate.BLAME)
        self.leave()
        if not mine:
            return  # fenced before: it was reported then, and its late troubles concern nobody
        if isinstance(error, Exception):
            raise error
        # From a BaseException pykka would go on to stop every actor of the process.
        raise ActorCrashed(repr(error)) from error

    def _obey(self, order: Order) -> None:
        match order:
            case Order.STOP:
                self.on_stop()
            case Order.LEAVE | Order.VANISH:
                self.leave()
            case Order.RAISE:
                raise ChaosKill("raise")
            case Order.EXIT:
                raise SystemExit("chaos")
            case Order.HANG:
                fenced = threading.Event()
                self.context.on_epoch_end(fenced.set)
                fenced.wait()
