"""TraderActor: one symbol's decisions. It asks the portfolio for money, the gateway to send, and books its fills."""

from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, Pending, TraderMemory
from bot.domain.adjustment import Adjustment
from bot.domain.decision import Decided, Decision, is_same_message, one_more
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline, is_newer
from bot.domain.money import ZERO, add, plain
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side, trade_of
from bot.domain.order_id import attempt_order_id, client_order_id
from bot.domain.position import Position
from bot.domain.risk import RiskLimits, exit_signal
from bot.domain.strategy import Signal, Strategy, thresholds_of
from bot.gateway import OrderGateway, Settled, Unsettled
from bot.messages import (
    Compare,
    Flatten,
    Freed,
    Mark,
    Notice,
    OrderEnded,
    OrderProposal,
    ProposalTimeout,
    Reserved,
    ResolveOrders,
    RulesChanged,
    Skipped,
    Taken,
)
from bot.ports import MarketBook, OrderJournal, Store
from bot.supervision import Actor, Context, Timer

ATTEMPT_NOTE = "attempt/"
"""Under which, with the symbol, the journal counts the orders that no kline decided."""
FLATTEN_ATTEMPTS = 5
"""How many orders in a row may sell nothing before the selling of all is given up."""


class TraderSettings(msgspec.Struct, frozen=True):
    """`max_gap_ms` and `max_age_ms` are None over history. `only_closed`: open klines never count.

    `in_care`: this is the stand-in of a quarantined trader, which only exits and keeps no strategy's state.

    Source: contract, section 1, Messages and Signal.
    """

    symbol: str
    mode: str
    bot_id: str
    limits: RiskLimits
    only_closed: bool = False
    max_gap_ms: int | None = None
    max_age_ms: int | None = None
    in_care: bool = False
    proposal_timeout_ms: int = 5_000
    resolve_ms: int = 1_000


class TraderActor(Actor):
    """Takes Kline, Reserved, Skipped, Adjustment, RulesChanged; gives Mark, OrderProposal, OrderEnded, Trade, Taken.

    A message is finished, its order included, before the next is begun; what comes meanwhile waits in order. Only then
    is it told to the bridge, to be stored: a process that dies before has not taken it, the next one does. Start,
    restart and takeover are one path: position and orders from the journal, the last close from memory or the store,
    orders of unknown fate asked of the exchange before the first kline.

    Every message ends in one decision. It is counted in the memory that is left at the end of a handler and told only
    then, with the message, so that counts and store say the same whatever dies in between.
    """

    def __init__(
        self,
        context: Context,
        settings: TraderSettings,
        rules: SymbolRules,
        strategy: Strategy,
        gateway: OrderGateway,
        journal: OrderJournal,
        store: Store,
        memory: Cell[TraderMemory],
        exchange_now_ms: Callable[[], int],
        market: MarketBook | None = None,
    ) -> None:
        super().__init__(context)
        self._settings = settings
        self._rules = rules
        self._strategy = strategy
        self._gateway = gateway
        self._journal = journal
        self._store = store
        self._cell = memory
        self._now_ms = exchange_now_ms
        self._market = market
        self._memory = memory.value
        self._doubts: dict[str, OrderIntent] = {}
        self._intended: set[str] = set()  # ids of all orders that the journal has of this symbol
        self._booked: set[tuple[str, int]] = set()
        self._adjusted: set[str] = set()
        self._question: Timer | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            Kline: self._on_kline,
            Reserved: self._on_reserved,
            Skipped: self._on_skipped,
            ProposalTimeout: self._on_timeout,
            ResolveOrders: self._on_resolve,
            Adjustment: self._on_adjustment,
            RulesChanged: self._on_rules,
            OrderReport: self._on_report,
            Flatten: self._on_flatten,
            Freed: self._on_freed,
        }

    def started(self) -> None:
        self.context.set_state("recovering")
        self._memory = self._cell.value
        symbol = self._settings.symbol
        stored = self._store.traded(symbol)
        # Asked first: an order that is settled meanwhile, by a thread of the last incarnation, is then in both.
        unresolved = [entry.intent for entry in self._journal.unresolved(symbol)]
        fills: list[Fill] = []
        intents = unresolved.copy()
        for entry in self._journal.settled(symbol):
            intents.append(entry.intent)
            fills += entry.fills
            if _quantity(entry.fills) > stored.get(entry.intent.client_order_id, ZERO):
                # A trade of an earlier process is news to the store only.
                self._tell_trade(entry.intent, entry.fills, is_news=self._memory.is_warm)
        adjustments = [one for one in self._journal.adjustments() if one.symbol == symbol]
        self._intended = {intent.client_order_id for intent in intents}
        self._booked = {(fill.client_order_id, fill.trade_id) for fill in fills}
        self._adjusted = {one.adjustment_id for one in adjustments}
        self._change(position=Position().with_all(fills, adjustments, self._rules))
        self._doubts = {intent.client_order_id: intent for intent in (*self._memory.doubts, *unresolved)}
        if not self._memory.is_warm:
            # Only once: afterwards the memory knows more than the store, which has what was taken a moment later.
            self._warm_up(max(intents, key=lambda intent: intent.event_time, default=None))
        elif self._memory.in_care and not self._settings.in_care:
            self._rebuild_state()
        # Before any of them is settled: whoever dies between settling and telling leaves the telling to the next one.
        self._save()
        self._on_resolve(ResolveOrders())
        if self._memory.pending is not None:
            self._propose_again(self._memory.pending)
        self._finish()

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)
        self._finish()

    def stopped(self) -> None:
        """Ask once more about orders of unknown fate: their replies came too late, the exchange may know by now."""
        if self._doubts:
            self._on_resolve(ResolveOrders())
            self._save()

    def _finish(self) -> None:
        """Take what waited while an order was under way, then leave all that is known to the next incarnation."""
        while self._memory.pending is None and (self._is_to_sell_all() or self._memory.waiting):
            if self._is_to_sell_all():
                self._sell_all()
                continue
            kline, *rest = self._memory.waiting
            self._change(waiting=tuple(rest))
            self._take(kline)
        self._save()
        if self._memory.untold:
            for done in self._memory.untold:
                self.context.tell(addresses.BRIDGE, done)
            # Saved with the next message: an incarnation that comes before tells them again, which is stored once.
            self._change(untold=())

    def _is_to_sell_all(self) -> bool:
        return self._memory.is_flattening and not self._doubts

    def _save(self) -> None:
        self._change(doubts=tuple(self._doubts.values()), in_care=self._settings.in_care)
        memory = self._memory
        self.context.run_fenced(lambda: setattr(self._cell, "value", memory))

    def _change(self, **changes: object) -> None:
        self._memory = msgspec.structs.replace(self._memory, **changes)

    def _warm_up(self, last_intent: OrderIntent | None) -> None:
        symbol, strategy = self._settings.symbol, self._strategy
        state = strategy.initial()
        klines = self._store.last_klines(symbol, strategy.warmup, self._settings.only_closed)
        for kline in klines:
            state = strategy.observe(state, kline)
        newest = self._store.last_klines(symbol, 1)
        last = newest[0] if newest else None
        close = klines[-1].close if klines else None
        recalled = None
        if last_intent is not None and (last is None or last.event_time < last_intent.event_time):
            # The store had not yet got the message that decided the last order: it was taken all the same.
            last, recalled = _kline_of(last_intent, last), last_intent
            state = strategy.observe(state, last)
            close = last.close
            # Nor has the portfolio, which values positions by what is stored, and no one else tells it of this message.
            self.context.tell(addresses.PORTFOLIO, Mark(symbol, close, last.event_time))
        self._change(last=last, recalled=recalled, state=state, close=close, is_warm=True)

    def _rebuild_state(self) -> None:
        """Have the strategy see again what it missed while a stand-in took the messages."""
        strategy, last = self._strategy, self._memory.last
        state = strategy.initial()
        if last is not None:
            stored = self._store.last_klines(last.symbol, strategy.warmup, self._settings.only_closed)
            counted = [last] if last.is_closed or not self._settings.only_closed else []
            for kline in (*(k for k in stored if is_newer(last, k)), *counted):
                state = strategy.observe(state, kline)
        self._change(state=state)

    def _on_kline(self, kline: Kline) -> None:
        if self._memory.pending is not None:
            self._change(waiting=(*self._memory.waiting, kline))
        else:
            self._take(kline)

    def _take(self, kline: Kline) -> None:
        memory, settings = self._memory, self._settings
        last = memory.last
        if memory.recalled is not None and last is not None and _is_same(kline, last):
            self._change(last=kline, recalled=None, taken=memory.taken + 1)
            self._conclude(kline, self._decision_of(memory.recalled, kline))
            return
        if not is_newer(kline, last):
            self._change(dropped=memory.dropped + 1)
            if last is not None and not is_same_message(kline, last):
                detail = f"not newer than the message of {last.event_time} in the candle of {last.open_time}"
                dropped = self._decision(kline, memory, Decided.DROPPED, detail)
                self._change(decisions=one_more(memory.decisions, Decided.DROPPED), untold=(*memory.untold, dropped))
            return
        if settings.only_closed and not kline.is_closed:
            self._change(last=kline, recalled=None, taken=memory.taken + 1)
            self._done(kline, Decided.OPEN_KLINE)
            return
        gap = (
            settings.max_gap_ms is not None
            and last is not None
            and kline.event_time - last.event_time > settings.max_gap_ms
        )
        stale = self._is_stale(kline)
        signal = None
        if gap or stale:
            state = self._strategy.observe(memory.state, kline)
        else:
            exit_first = exit_signal(settings.limits, memory.position, kline)
            state, signal = self._strategy.decide(memory.state, kline, memory.position)
            signal = exit_first or signal
        self._memory = msgspec.structs.replace(
            memory,
            last=kline,
            recalled=None,
            state=state,
            close=kline.close,
            previous_close=memory.close,
            taken=memory.taken + 1,
            gaps=memory.gaps + gap,
            stale=memory.stale + (stale and not gap),
        )
        if signal is None or (signal.side is Side.SELL and memory.position.quantity <= 0):
            self.context.tell(addresses.PORTFOLIO, Mark(kline.symbol, kline.close, kline.event_time))
            self._conclude_without_signal(kline, memory, gap, stale)
            return
        order_id = client_order_id(
            settings.bot_id, settings.mode, kline.symbol, signal.side, kline.open_time, kline.event_time
        )
        self._change(signals=one_more(memory.signals, signal.side.value))
        decision = self._decision(kline, memory, signal.side, signal.reason, order_id)
        self._propose(Pending(kline, signal, order_id, decision))

    def _conclude_without_signal(self, kline: Kline, before: TraderMemory, gap: bool, stale: bool) -> None:
        last, settings = before.last, self._settings
        if gap and last is not None:
            name = Decided.GAP
            age = kline.event_time - last.event_time
            reason = f"{age} ms behind the last message, more than {settings.max_gap_ms}: only sets the price"
        elif stale:
            name, reason = Decided.STALE, f"older than {settings.max_age_ms} ms when it was taken"
        elif settings.in_care:
            name, reason = Decided.QUARANTINED, "the strategy of a quarantined symbol is not asked"
        elif before.close is None:
            name, reason = Decided.FIRST, f"the first message: {plain(kline.close)} is what the next is compared with"
        else:
            self._done(kline, Decided.HOLD)
            return
        self._conclude(kline, self._decision(kline, before, name, reason))

    def _decision(self, kline: Kline, before: TraderMemory, name: str, reason: str, order_id: str = "") -> Decision:
        return Decision(
            symbol=kline.symbol,
            open_time=kline.open_time,
            event_time=kline.event_time,
            is_closed=kline.is_closed,
            name=str(name),
            reason=reason,
            close=kline.close,
            previous_close=before.close,
            thresholds=thresholds_of(self._strategy, before.state),
            position=before.position.quantity,
            client_order_id=order_id,
            time=self.context.clock.now_ms(),
        )

    def _decision_of(self, intent: OrderIntent, kline: Kline) -> Decision:
        """Say of a message that came again after a restart of the process what its order says of it."""
        return Decision(
            symbol=kline.symbol,
            open_time=kline.open_time,
            event_time=kline.event_time,
            is_closed=kline.is_closed,
            name=intent.side.value,
            reason=intent.reason,
            close=kline.close,
            previous_close=None,
            thresholds=None,
            position=None,
            client_order_id=intent.client_order_id,
            time=self.context.clock.now_ms(),
        )

    def _conclude(self, kline: Kline, decision: Decision | None) -> None:
        if decision is not None:
            self._done(kline, decision.name, decision)

    def _done(self, kline: Kline, name: str, decision: Decision | None = None) -> None:
        memory = self._memory
        self._change(decisions=one_more(memory.decisions, name), untold=(*memory.untold, Taken(kline, decision)))

    def _refuse(self, pending: Pending, name: str, detail: str) -> None:
        """Conclude a message whose signal made no order."""
        made = pending.decision
        if made is None:
            return
        reason = f"{made.name} refused: {detail} ({made.reason})"
        time = self.context.clock.now_ms()
        self._conclude(pending.kline, msgspec.structs.replace(made, name=name, reason=reason, time=time))

    def _is_stale(self, kline: Kline) -> bool:
        max_age_ms = self._settings.max_age_ms
        return max_age_ms is not None and self._now_ms() - kline.event_time > max_age_ms

    def _is_too_old(self, pending: Pending) -> bool:
        return not pending.signal.is_flatten and self._is_stale(pending.kline)

    def _propose_again(self, pending: Pending) -> None:
        """Go on with what the last incarnation decided, unless that is too old by now, or an entry in quarantine."""
        name = ""
        if self._settings.in_care and pending.signal.side is Side.BUY:
            name, detail = Decided.QUARANTINED.value, "a quarantined symbol makes no entries"
        elif self._is_too_old(pending):
            name, detail = Decided.STALE.value, "the decision waited too long for its order"
        if name and self._gateway.known(pending.client_order_id) is None:
            self._call_off(pending, name, detail)
        else:
            self._propose(pending)

    def _call_off(self, pending: Pending, name: str, detail: str) -> None:
        """Give a decision up before its order was journaled."""
        kline, side = pending.kline, pending.signal.side
        self.context.tell(
            addresses.MONITOR,
            Skipped(pending.client_order_id, kline.symbol, side, name, detail, kline.event_time),
        )
        self._release_unless_known(pending.client_order_id)
        self._change(pending=None)
        self._refuse(pending, name, detail)

    def _propose(self, pending: Pending) -> None:
        kline, order_id = pending.kline, pending.client_order_id
        # Asked only where it may be: a look into the journal takes as long as deciding did.
        known = self._gateway.known(order_id) if order_id in self._intended else None
        if known is not None or self._doubts:
            self.context.tell(addresses.PORTFOLIO, Mark(kline.symbol, kline.close, kline.event_time))
            self._change(pending=None)
            if known is None:
                self._skip_in_doubt(pending)
                return
            self._conclude(pending.kline, pending.decision)
            if known.status.is_final:
                self._end(Settled(known.intent, known.status, known.fills))
            return
        self._change(pending=pending)
        if self._market is not None:
            self._market.look(kline.symbol, kline.close, pending.signal.side)
        # Before the proposal: the portfolio wants the interpreter as soon as it has that.
        self.context.after(self._settings.proposal_timeout_ms, ProposalTimeout(order_id))
        self.context.tell(
            addresses.PORTFOLIO,
            OrderProposal(order_id, kline.symbol, pending.signal, kline.close, kline.event_time),
        )

    def _on_reserved(self, reserved: Reserved) -> None:
        pending = self._memory.pending
        if pending is None or pending.client_order_id != reserved.client_order_id:
            self._release_unless_known(reserved.client_order_id)
            return
        kline = pending.kline
        if self._is_too_old(pending) and self._gateway.known(reserved.client_order_id) is None:
            self._call_off(pending, Decided.STALE.value, "the decision waited too long for its money")
            return
        if pending.signal.side is Side.SELL and reserved.quantity > self._memory.position.quantity:
            # Sized by what was held before the book was corrected: the rest is somebody else's.
            detail = f"only {plain(self._memory.position.quantity)} are held by now, not {plain(reserved.quantity)}"
            self._call_off(pending, Decided.ADJUSTED.value, detail)
            return
        intent = OrderIntent(
            client_order_id=reserved.client_order_id,
            symbol=kline.symbol,
            side=pending.signal.side,
            quantity=reserved.quantity,
            close=kline.close,
            open_time=kline.open_time,
            event_time=kline.event_time,
            reason=pending.signal.reason,
            quote_reserved=reserved.quote_reserved,
            limit_price=reserved.limit_price,
        )
        self._intended.add(intent.client_order_id)
        outcome = self._gateway.submit(intent, self.context, passes_halt=pending.signal.is_flatten)
        self._change(pending=None)
        refusal = outcome.refusal if isinstance(outcome, Settled) else ""
        if refusal:
            self._refuse(pending, refusal, outcome.detail)
        else:
            self._conclude(pending.kline, pending.decision)
        self._end(outcome)

    def _on_skipped(self, skipped: Skipped) -> None:
        pending = self._memory.pending
        if pending is not None and pending.client_order_id == skipped.client_order_id:
            self._change(pending=None)
            self._refuse(pending, skipped.name, skipped.detail)
            if pending.signal.is_flatten:
                self._end_flatten("info", skipped.detail)

    def _on_timeout(self, timeout: ProposalTimeout) -> None:
        pending = self._memory.pending
        if pending is None or pending.client_order_id != timeout.client_order_id:
            return
        detail = f"no answer from the portfolio within {self._settings.proposal_timeout_ms} ms"
        self._call_off(pending, Decided.NO_ANSWER.value, detail)

    def _on_resolve(self, _: ResolveOrders) -> None:
        for order_id in list(self._doubts):
            outcome = self._gateway.resolve(order_id)
            if isinstance(outcome, Settled):
                self._book(outcome)
                del self._doubts[order_id]
        if self._doubts:
            self._ask_later()
        else:
            self.context.set_state("running")

    def _ask_later(self) -> None:
        """Ask in a while: by one timer, however many there are who say that something is unknown."""
        if self._question is not None:
            self._question.cancel()
        self._question = self.context.after(self._settings.resolve_ms, ResolveOrders())

    def _on_report(self, report: OrderReport) -> None:
        """Take what the account's stream says of an order, unless its own reply said it before."""
        outcome = self._gateway.take(report)
        if outcome is None and self._gateway.is_foreign(report):
            # Somebody uses an id that is this bot's.
            self.context.tell(addresses.ACCOUNT, Compare(soon=True))
        if isinstance(outcome, Settled):
            self._book(outcome)
            self._doubts.pop(report.client_order_id, None)
            if not self._doubts:
                self.context.set_state("running")

    def _on_flatten(self, _: Flatten) -> None:
        self._change(is_flattening=True, flatten_failures=0)

    def _sell_all(self) -> None:
        """Sell what is held, in as many orders as it takes; called while that is wished for and none is under way."""
        memory, settings = self._memory, self._settings
        if memory.flatten_failures >= FLATTEN_ATTEMPTS:
            self._end_flatten("error", f"{FLATTEN_ATTEMPTS} orders in a row sold nothing")
            return
        if memory.position.quantity <= 0 or memory.last is None:
            self._end_flatten("info", "nothing is held")
            return
        note = f"{ATTEMPT_NOTE}{settings.symbol}"
        attempt = int(self._journal.get_note(note) or 0) + 1
        self._journal.set_note(note, str(attempt))
        order_id = attempt_order_id(settings.bot_id, settings.mode, settings.symbol, attempt)
        signal = Signal(Side.SELL, "flatten: all is sold by command", sell_all=True, is_flatten=True)
        self._change(flatten_order=order_id)
        self._propose(Pending(memory.last, signal, order_id))

    def _end_flatten(self, level: str, why: str) -> None:
        memory = self._memory
        self._change(is_flattening=False, flattened=memory.flattened + 1)
        self._notice(level, f"selling all ended, {plain(memory.position.quantity)} left: {why}")

    def _on_adjustment(self, adjustment: Adjustment) -> None:
        if adjustment.adjustment_id not in self._adjusted and adjustment.symbol == self._settings.symbol:
            self._adjusted.add(adjustment.adjustment_id)
            self._change(position=self._memory.position.adjusted(adjustment))

    def _on_freed(self, freed: Freed) -> None:
        """What was told before is booked: say so."""
        self.context.tell(addresses.ACCOUNT, freed)

    def _on_rules(self, changed: RulesChanged) -> None:
        self._rules = next((new for new in changed.rules if new.symbol == self._settings.symbol), self._rules)

    def _end(self, outcome: Settled | Unsettled) -> None:
        if isinstance(outcome, Settled):
            self._book(outcome)
            return
        intent = outcome.intent
        self._doubts[intent.client_order_id] = intent
        self._notice(
            "warning", f"fate of {intent.side} {intent.client_order_id} unknown, asking the exchange: {outcome.detail}"
        )
        self._ask_later()

    def _book(self, settled: Settled) -> None:
        """Apply a settled order once, and tell whoever must know; they too take it once."""
        intent, position = settled.intent, self._memory.position
        for fill in settled.fills:
            key = (fill.client_order_id, fill.trade_id)
            if key not in self._booked:
                self._booked.add(key)
                position = position.after(fill, self._rules)
        self._change(position=position)
        if intent.client_order_id == self._memory.flatten_order:
            self._change(flatten_failures=0 if settled.fills else self._memory.flatten_failures + 1)
        ended = OrderEnded(
            intent.client_order_id,
            intent.symbol,
            settled.status.value,
            settled.fills,
            intent.event_time,
            settled.detail,
        )
        self.context.tell(addresses.PORTFOLIO, ended)
        if settled.fills:
            self._tell_trade(intent, settled.fills)
        else:
            self.context.tell(addresses.MONITOR, ended)

    def _tell_trade(self, intent: OrderIntent, fills: tuple[Fill, ...], is_news: bool = True) -> None:
        trade = trade_of(intent, fills, self._settings.mode, self._settings.bot_id)
        if trade is not None:
            self.context.tell(addresses.BRIDGE, trade)
            if is_news:
                self.context.tell(addresses.MONITOR, trade)

    def _release_unless_known(self, order_id: str) -> None:
        """Give back the money of an order that was never journaled, so never sent."""
        if self._gateway.known(order_id) is None:
            symbol = self._settings.symbol
            self.context.tell(
                addresses.PORTFOLIO, OrderEnded(order_id, symbol, OrderStatus.NOT_PLACED.value, (), event_time=0)
            )

    def _notice(self, level: str, text: str) -> None:
        notice = Notice(str(self.context.address), level, text, self.context.clock.now_ms())
        self.context.tell(addresses.MONITOR, notice)

    def _skip_in_doubt(self, pending: Pending) -> None:
        kline, side = pending.kline, pending.signal.side
        detail = f"the fate of {', '.join(self._doubts)} is not known yet"
        self.context.tell(
            addresses.MONITOR,
            Skipped(pending.client_order_id, kline.symbol, side, Decided.IN_DOUBT.value, detail, kline.event_time),
        )
        self._refuse(pending, Decided.IN_DOUBT.value, detail)


def _quantity(fills: Iterable[Fill]) -> Decimal:
    total = ZERO
    for fill in fills:
        total = add(total, fill.quantity)
    return total


def _is_same(one: Kline, other: Kline) -> bool:
    return (one.open_time, one.event_time) == (other.open_time, other.event_time)


def _kline_of(intent: OrderIntent, last: Kline | None) -> Kline:
    """Return the kline that decided an order, as far as its intent remembers it."""
    interval = last.interval if last is not None else ""
    length = last.close_time - last.open_time if last is not None else None
    return Kline(
        symbol=intent.symbol,
        interval=interval,
        open_time=intent.open_time,
        close_time=intent.event_time if length is None else intent.open_time + length,
        event_time=intent.event_time,
        open=intent.close,
        high=intent.close,
        low=intent.close,
        close=intent.close,
        volume=ZERO,
        quote_volume=None,
        is_closed=length is not None and intent.event_time == intent.open_time + length,
    )
