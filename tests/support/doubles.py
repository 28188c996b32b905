"""Doubles behind the ports: an exchange that does what it is told, a store and halt switch in memory."""

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from bot.domain.decision import Decision
from bot.domain.kline import Kline
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side, Trade
from bot.domain.sizing import SizingParameters, paper_fill
from bot.ports import ExchangeUnavailable, OrderInDoubt, OrderNotSent, OrderRejected, StoreError, at_once
from bot.supervision.testing import ManualClock

WINDOW_MS = 4_000


class Crash(BaseException):
    """What kills an actor in these tests; no `except Exception` may stop it."""


class Faults:
    """Points at which a crash may come: after `countdown` of them the next one raises."""

    def __init__(self) -> None:
        self.countdown: int | None = None
        self.passed: list[str] = []

    def point(self, name: str) -> None:
        self.passed.append(name)
        if self.countdown is None:
            return
        if self.countdown == 0:
            self.countdown = None
            raise Crash(name)
        self.countdown -= 1


class ScriptedExchange:
    """An exchange that accepts a reused id, as Binance does; `plan` says what becomes of the next orders.

    fill, reject, not_sent: as they say. executed_no_reply, lost_no_reply: the reply is lost, and what it was about
    happened or did not. late: the reply is lost and the order is executed by `deliver`. partial: half is filled, the
    rest EXPIRED. unfinished: the reply says NEW, later it is FILLED. Anything else that is an exception is raised.
    """

    acceptance_window_ms = WINDOW_MS

    def __init__(self, clock: ManualClock, rules, faults: Faults | None = None, parameters=None) -> None:
        self.clock = clock
        self.faults = faults or Faults()
        self.plan: deque = deque()
        self.is_away = False
        self.placed: list[str] = []
        self.executed: list[OrderReport] = []
        self.late: list[tuple[int, OrderIntent]] = []
        self.on_place = lambda intent: None
        self.on_left = lambda intent: None
        self._rules = rules
        self._parameters = parameters or SizingParameters()
        self._known: dict[str, OrderReport] = {}

    @property
    def fills(self) -> list[Fill]:
        return [fill for report in self.executed for fill in report.fills]

    def rules(self, symbols):
        return {symbol: self._rules[symbol] for symbol in symbols}

    def free_balance(self, asset):
        raise ExchangeUnavailable("not asked for in tests")

    def now_ms(self) -> int:
        if self.is_away:
            raise ExchangeUnavailable("away")
        return self.clock.now_ms()

    def place(self, intent: OrderIntent, leave=at_once) -> OrderReport:
        self.on_place(intent)
        self.faults.point("place, before")
        leave(lambda: None)
        self.on_left(intent)
        self.placed.append(intent.client_order_id)
        step = self.plan.popleft() if self.plan else "fill"
        if isinstance(step, BaseException):
            raise step
        match step:
            case "not_sent":
                raise OrderNotSent("no connection")
            case "lost_no_reply":
                raise OrderInDoubt("the connection was cut")
            case "late":
                self.late.append((self.clock.now_ms(), intent))
                raise OrderInDoubt("the connection was cut")
            case "reject":
                self._known[intent.client_order_id] = OrderReport(
                    intent.client_order_id, 0, intent.symbol, OrderStatus.REJECTED, detail="-2010"
                )
                raise OrderRejected(-2010, "Account has insufficient balance for requested action.")
        report = self._execute(intent, Decimal("0.5") if step == "partial" else Decimal(1))
        self.faults.point("place, executed")
        if step == "executed_no_reply":
            raise OrderInDoubt("the connection was cut")
        if step == "unfinished":
            return OrderReport(report.client_order_id, report.order_id, report.symbol, OrderStatus.NEW)
        return report

    def find(self, intent: OrderIntent) -> OrderReport | None:
        if self.is_away:
            raise ExchangeUnavailable("away")
        return self._known.get(intent.client_order_id)

    def deliver(self) -> None:
        """Let late requests arrive: executed within the window, refused after it, as recvWindow has it."""
        late, self.late = self.late, []
        for sent_at, intent in late:
            if self.clock.now_ms() <= sent_at + self.acceptance_window_ms - 1_000:
                self._execute(intent, Decimal(1))

    def _execute(self, intent: OrderIntent, part: Decimal) -> OrderReport:
        number = len(self.executed) + 1
        rules = self._rules[intent.symbol]
        quantity = intent.quantity if part == 1 else (intent.quantity * part // rules.step_size) * rules.step_size
        fills = ()
        if quantity:
            args = (rules, intent.side, quantity, intent.close, intent.event_time, self._parameters)
            fills = (paper_fill(intent.client_order_id, number, *args),)
        status = OrderStatus.FILLED if part == 1 else OrderStatus.EXPIRED
        report = OrderReport(intent.client_order_id, number, intent.symbol, status, fills)
        self.executed.append(report)
        self._known[intent.client_order_id] = report
        return report


class NoHalt:
    reason: str | None = None

    def refusal(self, symbol: str, side: Side) -> str | None:
        return None if self.reason is None else f"halted: {self.reason}"

    def halt(self, reason: str) -> None:
        self.reason = reason


@dataclass
class MemoryStore:
    """`ports.Store` in memory; `is_failing` makes it take nothing."""

    klines: dict[tuple, Kline] = field(default_factory=dict)
    trades: dict[str, Trade] = field(default_factory=dict)
    is_failing: bool = False
    writes: list[int] = field(default_factory=list)
    pruned: list[int] = field(default_factory=list)
    decisions: dict[tuple, Decision] = field(default_factory=dict)
    events: list = field(default_factory=list)

    def write(self, klines, trades, decisions=(), events=()) -> None:
        if self.is_failing:
            raise StoreError("history.db: the disk is full")
        self.writes.append(len(klines) + len(trades) + len(decisions) + len(events))
        for one in decisions:
            self.decisions.setdefault((one.symbol, one.open_time, one.is_closed, one.event_time), one)
        self.events += [event for event in events if event not in self.events]
        for kline in klines:
            self.klines[kline.symbol, kline.open_time, kline.is_closed, kline.event_time] = kline
        for trade in trades:
            known = self.trades.get(trade.client_order_id)
            if known is None or trade.quantity > known.quantity:
                self.trades[trade.client_order_id] = trade

    def last_klines(self, symbol, count, closed_only=False):
        mine = [k for k in self.klines.values() if k.symbol == symbol and (k.is_closed or not closed_only)]
        return sorted(mine, key=lambda k: (k.open_time, k.is_closed, k.event_time))[-count:] if count else []

    def traded(self, symbol):
        return {trade.client_order_id: trade.quantity for trade in self.trades.values() if trade.symbol == symbol}

    def prune(self, before_ms, events_before_ms):
        self.pruned.append(before_ms)
        return 0


class CrashingJournal:
    """A journal whose every write is a point before and after which its caller may die."""

    def __init__(self, journal, faults: Faults) -> None:
        self._journal = journal
        self._faults = faults

    def __getattr__(self, name):
        method = getattr(self._journal, name)
        if name not in {"record", "settle", "amend", "adjust", "set_note"}:
            return method

        def write(*args, **kwargs):
            self._faults.point(f"{name}, before")
            result = method(*args, **kwargs)
            self._faults.point(f"{name}, done")
            return result

        return write
