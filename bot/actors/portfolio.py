"""PortfolioActor: the only owner of the money. It sizes every order and sets its cost aside, one after another."""

from collections.abc import Callable, Mapping
from decimal import Decimal

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, PortfolioMemory, TraderMemory
from bot.domain.adjustment import Adjustment, in_order
from bot.domain.filters import Refusal, SymbolRules
from bot.domain.kline import Kline
from bot.domain.ledger import Ledger, Reservation, TradingDay
from bot.domain.market import MarketView
from bot.domain.money import add, subtract
from bot.domain.order import Fill, OrderIntent, Side
from bot.domain.risk import MINUTE_MS
from bot.domain.sizing import Sized, SizingParameters, size_order
from bot.messages import (
    DiskSpace,
    Freed,
    Halt,
    Mark,
    Notice,
    OrderEnded,
    OrderProposal,
    Reserved,
    RulesChanged,
    Skipped,
)
from bot.ports import OrderJournal
from bot.supervision import Actor, Context

START_CASH_NOTE = "start_cash"
DAY_NOTE = "trading_day"


class _NotedDay(TradingDay, frozen=True):
    """`start_cash` is what the book began with when this was noted; None in notes of before it was kept."""

    start_cash: Decimal | None = None


_days = msgspec.json.Decoder(_NotedDay)


class PortfolioActor(Actor):
    """Takes Mark, OrderProposal, OrderEnded, Adjustment, RulesChanged, DiskSpace, Halt.

    It answers a proposal with Reserved or Skipped and never waits for anyone. The same proposal twice is one
    reservation, the same fill or adjustment twice is booked once, so any message may come again after a restart.
    """

    def __init__(
        self,
        context: Context,
        parameters: SizingParameters,
        rules: Mapping[str, SymbolRules],
        journal: OrderJournal,
        memory: Cell[PortfolioMemory],
        traders: Mapping[str, Cell[TraderMemory]],
        last_counted: Callable[[str], Kline | None],
        market: Callable[[str], MarketView | None],
        halt: Callable[[str], None],
    ) -> None:
        """`market` gives what is known of a symbol at the exchange; None where no exchange is traded on.

        `halt` is the kill switch: once it returned no order leaves, whoever holds its money.
        """
        super().__init__(context)
        self._parameters = parameters
        self._rules = rules
        self._journal = journal
        self._cell = memory
        self._traders = traders
        self._last_counted = last_counted
        self._market = market
        self._halt = halt
        self._order_times: list[int] = []
        self._start_cash = Decimal(0)
        self._disk_low = False
        self._ledger = Ledger(self._start_cash, rules)
        self._handlers: dict[type, Callable[..., None]] = {
            Mark: self._on_mark,
            OrderProposal: self._on_proposal,
            OrderEnded: self._on_ended,
            DiskSpace: self._on_disk_space,
            Adjustment: self._on_adjustment,
            RulesChanged: self._on_rules,
            Halt: self._on_halt,
            Freed: self._on_freed,
        }

    def started(self) -> None:
        noted = self._journal.get_note(START_CASH_NOTE)
        if noted is None:
            raise ValueError("the journal knows no starting cash; it is written when a data directory is first used")
        self._start_cash = Decimal(noted)
        self._disk_low = self._cell.value.disk_low
        self._order_times = []
        ledger = Ledger(self._start_cash, self._rules, self._parameters.limits.max_daily_loss)
        ledger.change_rules(self._cell.value.rules)
        # Reserved money that no intent tells of yet: its answer is on the way to a trader, or in its hands.
        for order_id, reservation in self._cell.value.reservations:
            ledger.reserve(order_id, reservation)
        # Asked before the settled ones: an order that is settled meanwhile is then in both, not in neither.
        for entry in self._journal.unresolved():
            ledger.reserve(entry.intent.client_order_id, _reservation(entry.intent))
            self._count_order(entry.intent.event_time)
        settled = list(self._journal.settled())
        event_times = {entry.intent.client_order_id: entry.intent.event_time for entry in settled}
        for event_time in event_times.values():
            self._count_order(event_time)
        for change in in_order((fill for entry in settled for fill in entry.fills), self._journal.adjustments()):
            if isinstance(change, Fill):
                ledger.book(change, event_times[change.client_order_id])
            else:
                ledger.adjust(change)
        for order_id in event_times:
            ledger.release(order_id)
        for symbol in self._rules:
            cell = self._traders.get(symbol)
            close = cell.value.close if cell is not None else None
            stored = self._last_counted(symbol) if close is None else None
            close = stored.close if stored is not None else close
            if close is not None:
                ledger.marks[symbol] = close
        noted_day = self._journal.get_note(DAY_NOTE)
        if noted_day is not None:
            ledger.day = self._day(_days.decode(noted_day))
        self._ledger = ledger
        self._keep()

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def _on_mark(self, mark: Mark) -> None:
        self._mark(mark.symbol, mark.close, mark.event_time)

    def _mark(self, symbol: str, close: Decimal, event_time: int) -> None:
        before = self._ledger.day
        self._ledger.mark(symbol, close, event_time)
        if self._ledger.day is before:
            return
        if self._parameters.limits.max_daily_loss is not None:
            noted = _NotedDay(**msgspec.structs.asdict(self._ledger.day), start_cash=self._start_cash)
            self._journal.set_note(DAY_NOTE, msgspec.json.encode(noted).decode())
        self._keep()

    def _day(self, noted: _NotedDay) -> TradingDay:
        """Return the day as it goes on: `capital` that was raised or lowered since is neither a gain nor a loss."""
        begun, before = noted.start_equity, noted.start_cash
        moved = begun if before is None else add(begun, subtract(self._start_cash, before))
        return TradingDay(number=noted.number, start_equity=moved, lost=noted.lost)

    def _on_proposal(self, proposal: OrderProposal) -> None:
        ledger, symbol, order_id = self._ledger, proposal.symbol, proposal.client_order_id
        self._mark(symbol, proposal.close, proposal.event_time)
        held = ledger.reservations.get(order_id)
        if held is not None:
            self._answer(proposal, Reserved(order_id, held.quantity, held.quote, held.limit_price))
            return
        if self._disk_low and proposal.signal.side is Side.BUY:
            sized: Sized | Refusal = Refusal(
                "DISK_LOW", "too little disk space is left to store what an entry would bring"
            )
        else:
            sized = size_order(
                ledger,
                symbol,
                proposal.signal,
                proposal.close,
                proposal.event_time,
                self._parameters,
                self._market(symbol),
                self.context.clock.now_ms(),
                sum(time > proposal.event_time - MINUTE_MS for time in self._order_times),
            )
        if isinstance(sized, Refusal):
            side = proposal.signal.side
            skipped = Skipped(order_id, symbol, side, sized.name, sized.detail, proposal.event_time)
            self.context.tell(addresses.MONITOR, skipped)
            self._answer(proposal, skipped)
            return
        self._count_order(proposal.event_time)
        quantity, quote, limit = sized.quantity, sized.quote_reserved, sized.limit_price
        ledger.reserve(order_id, Reservation(symbol, proposal.signal.side, quantity, quote, limit))
        self._keep()
        self._answer(proposal, Reserved(order_id, quantity, quote, limit))

    def _answer(self, proposal: OrderProposal, answer: Reserved | Skipped) -> None:
        self.context.tell(addresses.trader(proposal.symbol), answer)

    def _on_ended(self, ended: OrderEnded) -> None:
        for fill in ended.fills:
            self._ledger.book(fill, ended.event_time)
        self._ledger.release(ended.client_order_id)
        self._keep()

    def _on_disk_space(self, space: DiskSpace) -> None:
        self._disk_low = space.is_low
        self._keep()

    def _on_adjustment(self, adjustment: Adjustment) -> None:
        self._ledger.adjust(adjustment)
        self._keep()

    def _on_rules(self, changed: RulesChanged) -> None:
        self._ledger.change_rules(changed.rules)
        self._keep()

    def _on_halt(self, halt: Halt) -> None:
        self._halt(halt.reason)
        text = f"halted, no order leaves until `resume`: {halt.reason}"
        notice = Notice(str(self.context.address), "error", text, self.context.clock.now_ms())
        self.context.tell(addresses.MONITOR, notice)

    def _on_freed(self, freed: Freed) -> None:
        self.context.tell(addresses.ACCOUNT, freed)

    def _count_order(self, event_time: int) -> None:
        """Remember when an order was made, by its kline's event time; of the last two minutes, since symbols differ."""
        if self._parameters.limits.max_orders_per_minute is not None:
            oldest = max([*self._order_times, event_time]) - 2 * MINUTE_MS
            self._order_times = [time for time in (*self._order_times, event_time) if time > oldest]

    def _keep(self) -> None:
        ledger = self._ledger
        memory = PortfolioMemory(
            cash=ledger.cash,
            free_cash=ledger.free_cash(),
            start_cash=self._start_cash,
            day=ledger.day,
            disk_low=self._disk_low,
            reservations=tuple(ledger.reservations.items()),
            rules=tuple(ledger.rules.values()),
            positions={symbol: position.quantity for symbol, position in ledger.positions.items()},
        )
        self.context.run_fenced(lambda: setattr(self._cell, "value", memory))


def _reservation(intent: OrderIntent) -> Reservation:
    return Reservation(intent.symbol, intent.side, intent.quantity, intent.quote_reserved, intent.limit_price)
