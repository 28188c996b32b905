"""Replay: historical klines injected into the real actors, in lock step. The actors know nothing of it.

The next kline is let in when all that the last one caused is settled, so that one wallet sees several symbols'
decisions in the same order as a backtest. Source: contract, section 2, replay.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal

import msgspec

from bot.actors import addresses
from bot.actors.feed import FeedSettings
from bot.actors.persistence import PersistenceSettings
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.supervisor import LANES, Memories, Parts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.local_log import LocalLog
from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, DataDirectoryError, Identity
from bot.app.trading import RULES_NOTE, encode_rules
from bot.domain.decision import Run
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.money import ZERO, add, multiply, plain
from bot.domain.order import Trade, trade_of
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Strategy
from bot.gateway import OrderGateway
from bot.research.files import Series, merged
from bot.research.report import RunReport, SymbolOutcome
from bot.supervision import ActorQuarantined, ActorSystem, DeadLetter, SystemClock

MODE = "replay"
SETTLE_TIMEOUT_S = 60.0
HANDLER_DEADLINE_MS = 30_000
LOG_HIGH_WATER = 20_000
"""How far the store may lag behind before the next kline waits for it."""


class ReplayError(Exception):
    """The actors did not finish; the text names the ones that hang or failed."""


class ReplayPlan(msgspec.Struct, frozen=True):
    """What a replay trades with. `cash` is in the quote asset; `speed` is a factor, None is as fast as it goes.

    `run` is what is stored of its settings; None stores nothing.
    """

    series: Sequence[Series]
    rules: Mapping[str, SymbolRules]
    strategy: Strategy
    sizing: SizingParameters
    cash: Decimal
    bot_id: str
    speed: Decimal | None = None
    run: Run | None = None


def run_replay(
    plan: ReplayPlan,
    directory: DataDirectory,
    progress: Callable[[int], None] = lambda done: None,
    stop: threading.Event | None = None,
) -> RunReport:
    """Trade all klines of the plan with the real actors and a store in `directory`; return the outcome.

    `progress` hears the number of klines so far, now and then; setting `stop` ends the replay in order, early.

    Raises DataDirectoryError for a directory that holds a book, ReplayError where an actor does not finish.
    """
    if directory.identity() is not None:
        raise DataDirectoryError(f"{directory.path} holds a book already; a replay begins with an empty --data-dir")
    directory.claim(Identity(mode=MODE, exchange="paper", account="paper", bot_id=plan.bot_id))
    with ExitStack() as stack:
        stack.callback(directory.release)
        store = stack.enter_context(SqliteStore(directory.history))
        journal = stack.enter_context(SqliteJournal(directory.orders))
        if plan.run is not None:
            store.record_run(plan.run)
        journal.set_note(START_CASH_NOTE, plain(plan.cash))
        journal.set_note(RULES_NOTE, encode_rules(plan.rules))
        return _Replay(plan, directory, store, journal).run(progress, stop or threading.Event())


class _Replay:
    def __init__(self, plan: ReplayPlan, directory: DataDirectory, store: SqliteStore, journal: SqliteJournal) -> None:
        self._plan = plan
        self._journal = journal
        self._log = LocalLog(directory.path / "spool")
        self._memories = Memories(tuple(s.symbol for s in plan.series))
        clock = SystemClock()
        self._escalated = ""
        self._system = ActorSystem(clock, lanes=LANES, on_event=self._on_event, on_escalate=self._on_escalate)
        rules = {s.symbol: plan.rules[s.symbol] for s in plan.series}
        exchange = PaperExchange(rules, plan.sizing, clock, next_trade_id=1)
        self._parts = Parts(
            feeds=tuple(FeedSettings(s.symbol, s.interval) for s in plan.series),
            traders=tuple(
                TraderSettings(symbol=s.symbol, mode=MODE, bot_id=plan.bot_id, limits=plan.sizing.limits)
                for s in plan.series
            ),
            persistence=PersistenceSettings(),
            rules=rules,
            strategy=plan.strategy,
            sizing=plan.sizing,
            mode=MODE,
            live=None,
            history=None,
            gateway=OrderGateway(exchange, journal, directory),
            journal=journal,
            store=store,
            log=self._log,
            free_bytes=directory.free_bytes,
            now_ms=clock.now_ms,
            exchange_now_ms=clock.now_ms,
            memories=self._memories,
            handler_deadline_ms=HANDLER_DEADLINE_MS,
            halt=directory.halt,
        )

    def run(self, progress: Callable[[int], None], stop: threading.Event) -> RunReport:
        first: dict[str, Decimal] = {}
        self._system.start(child_specs(self._parts))
        try:
            done, previous = 0, None
            for one, row in merged(self._plan.series):
                kline = row.kline(one.symbol, one.interval)
                first.setdefault(kline.symbol, kline.close)
                self._pace(previous, kline, stop)
                if stop.is_set():
                    break
                previous = kline
                self._inject(kline)
                done += 1
                if done % 256 == 0:
                    progress(done)
                    self._wait_for_store()
            progress(done)
            self._wait_for_store(LOG_HIGH_WATER if stop.is_set() else 0)
        finally:
            abandoned = self._system.stop()
            self._log.close()
        if abandoned:
            raise ReplayError(f"these actors would not stop: {', '.join(abandoned)}")
        if self._escalated:
            raise ReplayError(f"the replay is not whole: {self._escalated}")
        return self._report(first)

    def _inject(self, kline: Kline) -> None:
        told = self._system.tell(addresses.feed(kline.symbol), kline)
        if not (told and self._system.wait_settled(SETTLE_TIMEOUT_S)) or self._escalated:
            self._fail(f"the kline of {kline.symbol} at {kline.open_time} was not finished")

    def _pace(self, previous: Kline | None, kline: Kline, stop: threading.Event) -> None:
        if self._plan.speed is not None and previous is not None and kline.close_time > previous.close_time:
            stop.wait((kline.close_time - previous.close_time) / 1000 / float(self._plan.speed))

    def _wait_for_store(self, high_water: int = LOG_HIGH_WATER) -> None:
        waited, pause = 0.0, threading.Event()
        while self._log.depth > high_water:
            pause.wait(0.01)
            waited += 0.01
            if waited > SETTLE_TIMEOUT_S or self._escalated:
                self._fail(f"{self._log.depth} klines and trades are not stored")

    def _fail(self, what: str) -> None:
        if self._escalated:
            raise ReplayError(f"{what}: {self._escalated}")
        troubled = [f"{a.name} is {a.state}: {a.last_error}" for a in self._system.tree() if a.last_error]
        raise ReplayError(f"{what}; {'; '.join(troubled) or 'no actor failed, one must hang'}")

    def _report(self, first: Mapping[str, Decimal]) -> RunReport:
        memories, outcomes = self._memories, []
        cash = equity = memories.portfolio.value.cash
        for one in self._plan.series:
            trader = memories.traders[one.symbol].value
            close = trader.close if trader.close is not None else ZERO
            outcomes.append(
                SymbolOutcome(
                    symbol=one.symbol,
                    quote_asset=self._plan.rules[one.symbol].quote_asset,
                    first_close=first.get(one.symbol, ZERO),
                    last_close=close,
                    position=trader.position.quantity,
                )
            )
            equity = add(equity, multiply(trader.position.quantity, close))
        feeds = [cell.value for cell in memories.feeds.values()]
        return RunReport(
            bars=sum(cell.value.taken for cell in memories.traders.values()),
            dropped=sum(s.dropped for s in self._plan.series) + sum(feed.dropped for feed in feeds),
            symbols=tuple(outcomes),
            start_cash=self._plan.cash,
            cash=cash,
            equity=equity,
            skipped=dict(memories.monitor.value.skipped),
            trades=tuple(self._trades()),
        )

    def _trades(self) -> list[Trade]:
        made = (trade_of(e.intent, e.fills, MODE, self._plan.bot_id) for e in self._journal.settled())
        return [trade for trade in made if trade is not None]

    def _on_event(self, event: object) -> None:
        # Either one leaves klines out, and the outcome would be another than that of all klines.
        if isinstance(event, ActorQuarantined):
            self._escalated = f"{event.name} is quarantined: {event.reason}"
        elif isinstance(event, DeadLetter) and event.attempts:
            self._escalated = f"{event.name} could not take a {event.message_type}: {event.error}"
        self._system.tell(addresses.MONITOR, event)

    def _on_escalate(self, reason: str) -> None:
        self._escalated = reason
