"""The one way by which orders leave, and by which their fate is learnt. Source: contract, section 5.

An intent is journaled before its order leaves. An order whose reply was lost is not sent again: its fate is asked of
the exchange by client order id, and "there is none" counts only once the request can no longer be accepted.
"""

import threading
from collections.abc import Callable
from functools import reduce
from typing import Protocol, TypeVar

import msgspec

from bot.domain.decision import Decided
from bot.domain.money import ZERO, add
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus
from bot.ports import (
    ConfigurationRefused,
    Consequence,
    Exchange,
    ExchangeError,
    HaltSwitch,
    JournalEntry,
    OrderHeld,
    OrderJournal,
    OrderNotSent,
    OrderRejected,
    StoreError,
)

T = TypeVar("T")


class Fence(Protocol):
    """The right of one incarnation to act; it ends with its epoch."""

    def run_fenced(self, effect: Callable[[], T]) -> T: ...


class Settled(msgspec.Struct, frozen=True):
    """The order is final; `fills` are all its executions, none where it was refused or never placed.

    `refusal` is the contract's one name where this side let no order leave, empty where one left or was tried.
    """

    intent: OrderIntent
    status: OrderStatus
    fills: tuple[Fill, ...]
    detail: str = ""
    refusal: str = ""


class Unsettled(msgspec.Struct, frozen=True):
    """The order's fate is unknown; its money stays reserved. Ask again with `OrderGateway.resolve`."""

    intent: OrderIntent
    detail: str


class OrderGateway:
    """Sends orders exactly once and settles them in the journal. Thread-safe; calls block while the exchange does.

    `on_consequence` hears what a refusal means beyond its order: the consequence, the symbol, the exchange's words.
    `on_left` is called the moment that an order's bytes have left, and whether a kline decided it; it must be short.
    """

    def __init__(
        self,
        exchange: Exchange,
        journal: OrderJournal,
        halt: HaltSwitch,
        on_consequence: Callable[[Consequence, str, str], None] = lambda *_: None,
        on_left: Callable[[OrderIntent, bool], None] = lambda *_: None,
    ) -> None:
        self._exchange = exchange
        self._journal = journal
        self._halt = halt
        self._on_consequence = on_consequence
        self._on_left = on_left
        self._doubted_at: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._stayed: dict[str, tuple[str, str]] = {}  # never left, and that could not be journaled yet
        self._lock = threading.Lock()

    def known(self, client_order_id: str) -> JournalEntry | None:
        """Return the journal's entry of a decision that was made before, None for a new one."""
        return self._journal.entry(client_order_id)

    def submit(self, intent: OrderIntent, fence: Fence, passes_halt: bool = False) -> Settled | Unsettled:
        """Journal the intent, send its order and settle it; a known id is never sent, only resolved.

        `passes_halt`: the order sells because of a halt, so that a halt does not stop it.

        Raises Fenced, and sends nothing, if the caller's epoch is over.
        """
        with self._lock:
            if intent.client_order_id in self._leaving:
                return Unsettled(intent, "it is being sent right now")
            self._leaving.add(intent.client_order_id)
        try:
            try:
                is_new = fence.run_fenced(lambda: self._journal.record(intent))
            except StoreError as error:
                # Nothing left, and nothing will: what is not journaled is not sent.
                detail = f"the order could not be journaled: {error}"
                return Settled(intent, OrderStatus.NOT_PLACED, (), detail, Decided.NOT_JOURNALED.value)
            outcome = self._send(intent, fence, passes_halt) if is_new else None
        finally:
            with self._lock:
                self._leaving.discard(intent.client_order_id)
        if outcome is None:
            return self.resolve(intent.client_order_id)
        if isinstance(outcome, Unsettled):
            # Not before: whatever moment the request was signed at, it is past.
            self._doubt(intent)
        return outcome

    def _send(self, intent: OrderIntent, fence: Fence, passes_halt: bool) -> Settled | Unsettled:
        has_left = False

        def leave(send: Callable[[], None]) -> None:
            """Epoch and halt are looked at where the bytes leave, under the epoch's lock: none leaves after either."""
            nonlocal has_left
            reason = None if passes_halt else self._halt.refusal(intent.symbol, intent.side)
            if reason is not None:
                raise OrderHeld(reason)
            has_left = True
            send()
            self._on_left(intent, not passes_halt)

        try:
            report = self._exchange.place(intent, lambda send: fence.run_fenced(lambda: leave(send)))
        except OrderHeld as error:
            return self._settle_as_stayed(intent, str(error), Decided.HALTED.value)
        except OrderNotSent as error:
            return self._settle_as_stayed(intent, str(error))
        except OrderRejected as error:
            self._tell_consequence(error.consequence, intent, str(error))
            return self._settle(intent, OrderStatus.REJECTED, str(error))
        except ExchangeError as error:
            # In doubt, or an error that the port does not name here: the order may have reached the exchange.
            return Unsettled(intent, str(error))
        except BaseException:
            if not has_left:
                self._settle_as_stayed(intent, "its trader was stopped before it left")
            raise
        return self._take(intent, report)

    def resolve(self, client_order_id: str) -> Settled | Unsettled:
        """Learn the fate of a recorded order: from the journal, else from the exchange.

        Raises KeyError for an id that was never recorded.
        """
        entry = self._journal.entry(client_order_id)
        if entry is None:
            raise KeyError(client_order_id)
        if entry.status.is_final:
            return Settled(entry.intent, entry.status, entry.fills)
        intent = entry.intent
        with self._lock:
            is_leaving = client_order_id in self._leaving
            stayed = self._stayed.get(client_order_id)
        if stayed is not None:
            return self._settle_as_stayed(intent, *stayed)
        try:
            # A thread whose epoch is over may still be about to send it: then no window has begun yet.
            since = None if is_leaving else self._doubt(intent)
            # Read before the question: only an answer given after the window says that nothing can come any more.
            closed = since is not None and self._exchange.now_ms() > since + self._exchange.acceptance_window_ms
            report = self._exchange.find(intent)
        except ConfigurationRefused as error:
            self._tell_consequence(Consequence.HALT, intent, str(error))
            return Unsettled(intent, str(error))
        except ExchangeError as error:
            return Unsettled(intent, str(error))
        if report is not None:
            return self._take(intent, report)
        if closed:
            return self._settle(intent, OrderStatus.NOT_PLACED, "the exchange has no order with this id")
        return Unsettled(intent, "not found, but the exchange may still accept the request")

    def take(self, report: OrderReport) -> Settled | Unsettled | None:
        """Settle an order by what was learnt of it elsewhere; None where that is no news, or `is_foreign`.

        Fills of an order that was settled without them are added: only the exchange knows what it executed.
        """
        entry = self._journal.entry(report.client_order_id)
        if entry is None or self._is_another(entry, report):
            return None
        if not entry.status.is_final:
            return self._take(entry.intent, report)
        try:
            late = self._journal.amend(report.client_order_id, report.fills)
        except StoreError as error:
            return Unsettled(entry.intent, f"late fills could not be journaled: {error}")
        return Settled(entry.intent, entry.status, (*entry.fills, *late), report.detail) if late else None

    def is_foreign(self, report: OrderReport) -> bool:
        """Return whether a report is of no order of this journal, though it may carry the id of one.

        An id is free again once its order has ended: whoever has it may use it. Source: contract, section 5.
        """
        entry = self._journal.entry(report.client_order_id)
        return entry is None or self._is_another(entry, report)

    def _is_another(self, entry: JournalEntry, report: OrderReport) -> bool:
        if report.client_order_id in self._stayed or (report.fills and entry.is_no_order):
            return True
        if entry.status.is_final and entry.order_id and report.order_id != entry.order_id:
            return True
        # An order settled as not found has no id to tell them by: but none executes more than was asked for, or the
        # other side.
        executed = reduce(add, (fill.quantity for fill in report.fills), ZERO)
        return executed > entry.intent.quantity or any(fill.side is not entry.intent.side for fill in report.fills)

    def _tell_consequence(self, consequence: Consequence, intent: OrderIntent, detail: str) -> None:
        if consequence is not Consequence.NOTHING:
            self._on_consequence(consequence, intent.symbol, detail)

    def _doubt(self, intent: OrderIntent) -> int | None:
        """Return the exchange's time at which doubt was first known, that is, after the request was signed."""
        with self._lock:
            since = self._doubted_at.get(intent.client_order_id)
        if since is None:
            try:
                since = self._exchange.now_ms()
            except ExchangeError:
                return None
            with self._lock:
                since = self._doubted_at.setdefault(intent.client_order_id, since)
        return since

    def _take(
        self, intent: OrderIntent, report: OrderReport, refusal: str = "", never_left: bool = False
    ) -> Settled | Unsettled:
        if not report.status.is_final:
            return Unsettled(intent, f"the exchange says {report.status.value}")
        try:
            self._journal.settle(report, never_left)
        except StoreError as error:
            # The order is what it is; that it is unknown to the books is settled at the next question.
            return Unsettled(intent, f"the order's end could not be journaled: {error}")
        with self._lock:
            self._doubted_at.pop(intent.client_order_id, None)
            self._stayed.pop(intent.client_order_id, None)
        return Settled(intent, report.status, report.fills, report.detail, refusal)

    def _settle(self, intent: OrderIntent, status: OrderStatus, detail: str) -> Settled | Unsettled:
        return self._take(intent, _report(intent, status, detail))

    def _settle_as_stayed(self, intent: OrderIntent, detail: str, refusal: str = "") -> Settled | Unsettled:
        """Journal that an order never left: whatever comes under its id is another one's, also until that is written.

        Source: contract, section 5; two bots of one bot_id make the same decisions and so the same ids.
        """
        with self._lock:
            self._stayed[intent.client_order_id] = (detail, refusal)
        return self._take(intent, _report(intent, OrderStatus.NOT_PLACED, detail), refusal, never_left=True)


def _report(intent: OrderIntent, status: OrderStatus, detail: str) -> OrderReport:
    return OrderReport(
        client_order_id=intent.client_order_id, order_id=0, symbol=intent.symbol, status=status, detail=detail
    )
