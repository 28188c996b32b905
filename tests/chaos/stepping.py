"""An exchange that serves one kline at a time, and what a bot has made of it once all is done.

The klines of a stepped exchange follow one another as fast as they are asked for, so their times run ahead of the real
clock. The exchange's clock is set a month ahead (its fault `clock_skew`): all of them are past then, and REST gives a
feed that was away the closed klines that it missed, as in real life.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.trading import RULES_NOTE, decode_rules
from bot.domain.order import OrderStatus
from bot.research.report import trade_json
from tests.chaos.tapes import SETTINGS, Tape
from tests.integration.processes import ExchangeProcess, pause

MONTH_MS = 30 * 86_400_000
YEAR_S = 365 * 86_400
ORDERS_IN_10_S = 80
"""Of the hundred that the exchange takes."""
WEIGHT_A_MINUTE = 3000
"""Of the 6,000 that the exchange takes. A start uses about a hundred, and a bot asks for no price from 3,600 on."""
LOOK_EVERY = 8


class SteppedExchange(ExchangeProcess):
    """Plays a tape, one kline a call of `next`."""

    def __init__(self, directory: Path, tape: Tape) -> None:
        super().__init__(directory, 1, 1000, "--step", "--files", *tape.paths)
        self._window = self._served = self._orders_before = self._steps = 0

    def start(self) -> None:
        super().start()
        self.fault("clock_skew", ms=MONTH_MS)

    @property
    def settings(self) -> dict[str, str]:
        """Age and gap of a kline say nothing here: none is old because an actor was away, and none is missing."""
        return {**super().settings, **SETTINGS, "BOT_MAX_AGE": str(YEAR_S), "BOT_MAX_GAP": "1000"}

    def next(self) -> tuple[str, int] | None:
        """Serve one kline; its symbol and close_time, None at the end."""
        self._stay_below_the_order_limit()
        self._stay_below_the_weight_limit()
        served = self.post("/sim/next")
        return None if served is None else (served["s"], served["k"]["T"])

    def _stay_below_the_order_limit(self) -> None:
        # Each kline may bring an order; the exchange counts in windows of ten seconds.
        while (window := int(time.time() // 10)) == self._window and self._served >= ORDERS_IN_10_S:
            if len(self.state()["orders"]) < self._orders_before + ORDERS_IN_10_S:
                return
            pause(0.05)
        if window != self._window:
            self._window, self._served, self._orders_before = window, 0, len(self.state()["orders"])
        self._served += 1

    def _stay_below_the_weight_limit(self) -> None:
        """Starts follow one another faster than any operator's would: an exchange would not bear many more a minute."""
        self._steps += 1
        while self._steps % LOOK_EVERY == 0 and self.used_weight() > WEIGHT_A_MINUTE:
            pause(1)


def await_true(condition: Callable[[], Any], timeout_s: float, what: Callable[[], str] | str) -> None:
    """Look every millisecond: for what comes so fast that steps would spend their time looking."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        pause(0.001)


class Outcome(msgspec.Struct, frozen=True):
    """What a stopped bot's data directory holds; times are those of the tape, amounts exact."""

    trades: list[dict[str, Any]]
    klines: dict[tuple[str, int], tuple[Any, ...]]
    lost: set[tuple[str, int]]
    """Decisions whose order was journaled and never placed: symbol and open_time of their klines."""
    rejected: list[str]
    """Orders that the exchange refused, by client order id."""
    reasons: dict[str, list[str]]
    """Why nothing was done, of each message with a stored decision, by the decision's name."""


def outcome_of(data: Path, tape: Tape) -> Outcome:
    """Read a stopped bot's book."""
    with SqliteStore.read_only(data / "history.db") as store, SqliteJournal.read_only(data / "orders.db") as journal:
        klines = list(store.klines())
        shift = min(kline.open_time for kline in klines) - tape.first
        trades = [
            {**trade_json(trade), "time": trade.time - shift} for trade in sorted(store.trades(), key=_order_of(tape))
        ]
        settled = list(journal.settled())
        lost = {
            (entry.intent.symbol, entry.intent.open_time - shift)
            for entry in settled
            if entry.status is OrderStatus.NOT_PLACED
        }
        reasons: dict[str, list[str]] = {}
        for one in tape.series:
            for decision in store.reasons.decisions_from(one.symbol, (0, False, 0), len(klines)):
                reasons.setdefault(decision.name, []).append(f"{one.symbol} {decision.event_time}: {decision.reason}")
    assert all(kline.is_closed for kline in klines)
    return Outcome(
        trades=trades,
        klines={
            (k.symbol, k.open_time - shift): (k.open, k.high, k.low, k.close, k.volume, k.quote_volume) for k in klines
        },
        lost=lost,
        rejected=[entry.intent.client_order_id for entry in settled if entry.status is OrderStatus.REJECTED],
        reasons=reasons,
    )


def rules_of_book(data: Path) -> Any:
    with SqliteJournal.read_only(data / "orders.db") as journal:
        return decode_rules(journal.get_note(RULES_NOTE))


def _order_of(tape: Tape) -> Callable[[Any], Any]:
    order = [one.symbol for one in tape.series]
    return lambda trade: (trade.time, order.index(trade.symbol))
