"""Why: what was decided at a moment or for an order, from what, and what came of it.

Only files are read; the bot may run or not.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from bot.actors import addresses
from bot.adapters.sqlite import ActorEvent, JournaledOrder, MessageKey, SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.app.trading import RULES_NOTE, decode_rules
from bot.domain.decision import UNKNOWN, Decision, Run, derived
from bot.domain.kline import Kline
from bot.domain.money import ROUNDING, ZERO, add, multiply, plain, subtract
from bot.domain.order import Fill, Side, Trade
from bot.domain.order_id import client_order_id
from bot.domain.position import Position
from bot.domain.strategy import Strategy, StrategyError, Thresholds, load_strategy, thresholds_of
from bot.research.report import trade_json

EACH_SIDE = 2
"""How many messages are shown before the one asked for, and how many behind it."""
NEAR_MS = 60_000
"""What happened to actors this long before and after is shown."""
DAY_MS = 86_400_000


class WhyError(ValueError):
    """A question about what is not stored; the text is one line that says what is."""


class Step(msgspec.Struct, frozen=True):
    """One message and what was decided at it; prices in the quote asset, `position` in the base asset, times ms UTC.

    `previous_close` and `thresholds` are what its close was measured against, None where that is not known.
    `since_last_ms` is how long after the message before it came, None for the first. `is_gap`: longer than two candles.
    """

    open_time: int
    event_time: int
    is_closed: bool
    close: Decimal
    previous_close: Decimal | None
    thresholds: Thresholds | None
    decision: str
    reason: str
    position: Decimal | None
    client_order_id: str
    decided_at: int | None
    since_last_ms: int | None
    is_gap: bool

    @property
    def change_percent(self) -> Decimal | None:
        """The close against the one before it, in per cent, rounded for people."""
        if not self.previous_close:
            return None
        change = multiply(subtract(self.close, self.previous_close), Decimal(100))
        return ROUNDING.divide(change, self.previous_close).quantize(Decimal("0.0001"))

    def as_json(self) -> dict[str, Any]:
        """Return the step with decimals as strings."""
        thresholds = self.thresholds or Thresholds()
        return {
            "open_time": self.open_time,
            "event_time": self.event_time,
            "is_closed": self.is_closed,
            "close": plain(self.close),
            "previous_close": _text(self.previous_close),
            "change_percent": _text(self.change_percent),
            "buy_at_or_below": _text(thresholds.buy),
            "sell_at_or_above": _text(thresholds.sell),
            "position": _text(self.position),
            "decision": self.decision,
            "reason": self.reason,
            "client_order_id": self.client_order_id,
            "decided_at": self.decided_at,
            "since_last_ms": self.since_last_ms,
            "is_gap": self.is_gap,
        }


class Answer(msgspec.Struct, frozen=True):
    """What is known: `steps` in message order, the one asked for at `index`; its order and trade, None without one.

    `events` are about actors that serve the symbol, `starts` the starts of the process, both within NEAR_MS.
    """

    symbol: str
    steps: tuple[Step, ...]
    index: int
    order: JournaledOrder | None
    trade: Trade | None
    events: tuple[ActorEvent, ...]
    starts: tuple[int, ...]
    run: Run | None
    asked_ms: int | None = None

    @property
    def step(self) -> Step | None:
        """The message asked for; None for an order whose message is not stored."""
        return self.steps[self.index] if self.steps else None

    def as_json(self) -> dict[str, Any]:
        """Return the answer as one object: decimals as strings, times in ms."""
        return {
            "symbol": self.symbol,
            "asked": self.asked_ms,
            "message": self.step.as_json() if self.step is not None else None,
            "messages": [step.as_json() for step in self.steps],
            "order": None if self.order is None else _order_json(self.order, self.trade),
            "events": [msgspec.structs.asdict(event) for event in self.events],
            "starts": list(self.starts),
            "run": None if self.run is None else _run_json(self.run),
        }


def why_moment(directory: DataDirectory, symbol: str, time_ms: int | None) -> Answer:
    """Explain the last message of `symbol` at `time_ms` (UTC), or the last one stored where that is None.

    Raises WhyError where nothing is stored then, DataDirectoryError, StoreError.
    """
    with _Inquiry(directory) as inquiry:
        return inquiry.moment(symbol, time_ms)


def why_order(directory: DataDirectory, order_id: str) -> Answer:
    """Explain the message whose signal has this client order id, whether it made an order or was refused.

    Raises WhyError for an unknown id, DataDirectoryError, StoreError.
    """
    with _Inquiry(directory) as inquiry:
        return inquiry.order(order_id)


class _Inquiry(ExitStack):
    def __init__(self, directory: DataDirectory) -> None:
        super().__init__()
        identity = directory.identity()
        assert identity is not None, "the caller has looked"
        self._path = directory.path
        self._identity: Identity = identity
        self._store = self.enter_context(SqliteStore.read_only(directory.history))
        self._journal = self.enter_context(SqliteJournal.read_only(directory.orders))
        self._reasons = self._store.reasons
        for files in (self._store, self._journal):
            self.enter_context(files.one_state())

    def moment(self, symbol: str, time_ms: int | None) -> Answer:
        span = self._store.span(symbol)
        if span is None:
            known = ", ".join(self._store.symbols()) or "none yet"
            raise WhyError(f"no message of {symbol} is stored in {self._path}; symbols stored: {known}")
        first, last = span
        kline = self._store.kline_at(symbol, last if time_ms is None else time_ms)
        decision = self._reasons.decision_at(symbol, last if time_ms is None else time_ms)
        found = [_key(one) for one in (kline, decision) if one is not None]
        late = time_ms is not None and kline is not None and time_ms - last > 2 * _length(kline)
        if not found or late:
            raise WhyError(
                f"no message of {symbol} is stored at {_iso(time_ms or last)}; stored are {_iso(first)} to {_iso(last)}"
            )
        return self._answer(symbol, max(found), time_ms)

    def order(self, order_id: str) -> Answer:
        decision, entry = self._reasons.decision_of(order_id), self._journal.entry(order_id)
        if decision is not None:
            return self._answer(decision.symbol, _key(decision), None)
        if entry is None:
            raise WhyError(
                f"no signal and no order {order_id} is stored in {self._path}; "
                "ids are listed by trades --json, or give a symbol and a time"
            )
        intent = entry.intent
        for is_closed in (True, False):
            key = (intent.open_time, is_closed, intent.event_time)
            if any(_key(kline) == key for kline in self._store.klines_from(intent.symbol, key, 1)):
                return self._answer(intent.symbol, key, None, entry)
        run = self._reasons.run_at(intent.event_time)
        events, starts = self._near(intent.symbol, intent.event_time)
        return Answer(intent.symbol, (), 0, entry, self._trade(entry), events, starts, run)

    def _answer(
        self, symbol: str, key: MessageKey, asked_ms: int | None, entry: JournaledOrder | None = None
    ) -> Answer:
        run = self._reasons.run_at(key[2])
        steps, index = self._steps(symbol, key, run)
        step = steps[index]
        if entry is None and step.client_order_id:
            entry = self._journal.entry(step.client_order_id)
        # What history is replayed at says nothing of its own time.
        is_replay = run is not None and run.mode == "replay"
        decided = [step.decided_at] if step.decided_at is not None and not is_replay else []
        events, starts = self._near(symbol, step.event_time, *decided)
        return Answer(symbol, steps, index, entry, self._trade(entry), events, starts, run, asked_ms)

    def _trade(self, entry: JournaledOrder | None) -> Trade | None:
        return None if entry is None else self._store.trade(entry.intent.symbol, entry.intent.client_order_id)

    def _near(self, symbol: str, *times: int) -> tuple[tuple[ActorEvent, ...], tuple[int, ...]]:
        served_by = (addresses.feed(symbol), addresses.trader(symbol), addresses.PORTFOLIO, addresses.BRIDGE)
        names = [str(address) for address in (*served_by, addresses.PERSISTENCE)]
        events: dict[ActorEvent, None] = {}
        starts: set[int] = set()
        for time in times:
            events.update(dict.fromkeys(self._reasons.events(names, time - NEAR_MS, time + NEAR_MS)))
            starts.update(run.start_time for run in self._reasons.runs(time - NEAR_MS, time + NEAR_MS))
        return tuple(sorted(events, key=lambda event: (event.time, event.name))), tuple(sorted(starts))

    def _steps(self, symbol: str, key: MessageKey, run: Run | None) -> tuple[tuple[Step, ...], int]:
        store, reasons, side = self._store, self._reasons, EACH_SIDE
        klines = {
            _key(kline): kline
            for kline in (*store.klines_before(symbol, key, side), *store.klines_from(symbol, key, side + 1))
        }
        decisions = {
            _key(decision): decision
            for decision in (
                *reasons.decisions_before(symbol, key, side),
                *reasons.decisions_from(symbol, key, side + 1),
            )
        }
        keys = sorted({*klines, *decisions})
        index = keys.index(key)
        keys, index = keys[max(0, index - side) : index + side + 1], min(index, side)
        view = _View(self._store, self._journal, self._identity, symbol, keys[0], run)
        return tuple(view.step(klines.get(one), decisions.get(one)) for one in keys), index


class _View:
    """Goes through messages in order and tells of each what it was measured against."""

    def __init__(
        self,
        store: SqliteStore,
        journal: SqliteJournal,
        identity: Identity,
        symbol: str,
        first: MessageKey,
        run: Run | None,
    ) -> None:
        self._reasons = store.reasons
        self._symbol = symbol
        self._journal = journal
        self._identity = identity
        self._run = run
        self._strategy = _strategy(run)
        self._only_closed = run is not None and run.only_closed
        self._changes: list[tuple[int, Decimal]] | None = None
        self._rules = decode_rules(journal.get_note(RULES_NOTE)).get(symbol)
        self._before = next(iter(store.klines_before(symbol, first, 1)), None)
        warmup = 1 if self._strategy is None else max(1, self._strategy.warmup)
        self._previous: Decimal | None = None
        self._state = None if self._strategy is None else self._strategy.initial()
        self._newest_ms = (store.span(symbol) or (0, 0))[1]
        for kline in store.klines_before(symbol, first, warmup, self._only_closed):
            self._take(kline)

    def step(self, kline: Kline | None, decision: Decision | None) -> Step:
        """Tell of the next message; one of the two is given at least."""
        step = self._decided(decision) if decision is not None else self._derived(kline)
        if kline is not None:
            if kline.is_closed or not self._only_closed:
                self._take(kline)
            self._before = kline
        return step

    def _take(self, kline: Kline) -> None:
        self._previous = kline.close
        if self._strategy is not None:
            self._state = self._strategy.observe(self._state, kline)

    def _decided(self, decision: Decision) -> Step:
        since, is_gap = self._distance(decision.event_time)
        return Step(
            open_time=decision.open_time,
            event_time=decision.event_time,
            is_closed=decision.is_closed,
            close=decision.close,
            previous_close=decision.previous_close,
            thresholds=decision.thresholds,
            decision=decision.name,
            reason=decision.reason,
            position=decision.position,
            client_order_id=decision.client_order_id,
            decided_at=decision.time,
            since_last_ms=since,
            is_gap=is_gap,
        )

    def _derived(self, kline: Kline | None) -> Step:
        assert kline is not None
        previous, run, order_id = self._previous, self._run, ""
        thresholds = thresholds_of(self._strategy, self._state) if self._strategy is not None else None
        position = self._position(kline)
        if run is None or (run.mode != "replay" and kline.event_time < run.start_time - NEAR_MS):
            name, reason, thresholds = UNKNOWN, "from before decisions were stored", None
        elif self._is_thinned(kline):
            previous = thresholds = None
            name, reason = derived(kline, None, position, self._only_closed)
            reason += "; the open candles it was compared with are no longer stored"
        else:
            name, reason = derived(kline, thresholds, position, self._only_closed)
        if name == UNKNOWN:
            for side in Side:
                identity = self._identity
                one = client_order_id(
                    identity.bot_id, identity.mode, kline.symbol, side, kline.open_time, kline.event_time
                )
                entry = self._journal.entry(one)
                if entry is not None:
                    name, reason, order_id = side.value, entry.intent.reason, one
        since, is_gap = self._distance(kline.event_time, _length(kline))
        return Step(
            open_time=kline.open_time,
            event_time=kline.event_time,
            is_closed=kline.is_closed,
            close=kline.close,
            previous_close=previous,
            thresholds=thresholds,
            decision=name,
            reason=reason,
            position=position,
            client_order_id=order_id,
            decided_at=None,
            since_last_ms=since,
            is_gap=is_gap,
        )

    def _position(self, kline: Kline) -> Decimal:
        """Return what was held when a message came at which no order was made.

        Where the decisions before and behind it agree, nothing else moved the position in between; else all orders of
        the symbol are added up.
        """
        rules, key = self._rules, _key(kline)
        if rules is None:
            return ZERO
        before, after = self._reasons.position_before(self._symbol, key), self._reasons.position_from(self._symbol, key)
        if before is not None and after is not None and before.position is not None:
            entry = self._journal.entry(before.client_order_id) if before.client_order_id else None
            held = Position(before.position)
            for fill in entry.fills if entry is not None else ():
                held = held.after(fill, rules)
            if held.quantity == after.position:
                return held.quantity
        if self._changes is None:
            self._changes = self._journal.position_changes(self._symbol, rules.base_asset)
        position = ZERO
        for time, change in self._changes:
            if time < kline.event_time:
                position = add(position, change)
        return position

    def _is_thinned(self, kline: Kline) -> bool:
        """Return whether the open candles before a closed one are likely to have been deleted, as old ones are."""
        run, before = self._run, self._before
        return (
            run is not None
            and run.mode != "replay"
            and not self._only_closed
            and kline.interval != "1s"
            and kline.is_closed
            and (before is None or before.is_closed)
            and kline.event_time < self._newest_ms - DAY_MS
        )

    def _distance(self, event_time: int, length: int | None = None) -> tuple[int | None, bool]:
        before = self._before
        if before is None:
            return None, False
        since = event_time - before.event_time
        return since, since > 2 * (length or _length(before))


def _strategy(run: Run | None) -> Strategy | None:
    if run is None:
        return None
    try:
        return load_strategy(run.strategy, run.parameters)
    except StrategyError:
        # It was loaded when the run began, and may be elsewhere now: then thresholds are not known.
        return None


def _key(message: Kline | Decision) -> MessageKey:
    return message.open_time, message.is_closed, message.event_time


def _length(kline: Kline) -> int:
    return kline.close_time - kline.open_time + 1


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _order_json(order: JournaledOrder, trade: Trade | None) -> dict[str, Any]:
    intent = order.intent
    return {
        "client_order_id": intent.client_order_id,
        "order_id": order.order_id,
        "side": intent.side.value,
        "quantity": plain(intent.quantity),
        "quote_reserved": plain(intent.quote_reserved),
        "reason": intent.reason,
        "status": order.status.value,
        "detail": order.detail,
        "fills": list(_fills_json(order.fills)),
        "trade": None if trade is None else trade_json(trade),
    }


def _fills_json(fills: Iterable[Fill]) -> Iterable[dict[str, Any]]:
    for fill in fills:
        yield {
            "trade_id": fill.trade_id,
            "price": plain(fill.price),
            "quantity": plain(fill.quantity),
            "quote_quantity": plain(fill.quote_quantity),
            "commission": plain(fill.commission),
            "commission_asset": fill.commission_asset,
            "time": fill.time,
        }


def _run_json(run: Run) -> dict[str, Any]:
    return {
        "start_time": run.start_time,
        "mode": run.mode,
        "strategy": run.strategy,
        "parameters": {name: plain(value) for name, value in run.parameters.items()},
        "only_closed": run.only_closed,
    }
