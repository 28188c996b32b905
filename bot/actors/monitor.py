"""MonitorActor: what people see of a run. Nobody waits for it; it logs, counts, and keeps the last things of note."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict

import msgspec
import structlog

from bot.actors.cells import Cell
from bot.domain.money import plain
from bot.domain.order import OrderStatus, Trade
from bot.messages import Notice, OrderEnded, Skipped, StreamDown, StreamUp, SymbolStopped
from bot.supervision import (
    Actor,
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    Context,
    DeadLetter,
)

KEPT = 50
MOST_REASONS = 30
BY_REASON = frozenset({"signals_skipped", "orders_rejected", "orders_unfilled"})


class Refusal(msgspec.Struct, frozen=True):
    """A signal or order that led to no trade, and why."""

    symbol: str
    side: str
    name: str
    detail: str
    event_time: int


class MonitorMemory(msgspec.Struct, frozen=True):
    """The last trades, refusals and notices, newest last, and counts since the process started.

    `counts` are those of metrics (`domain/metrics.py`), by name and labels. A reason that would be one too many for a
    metric counts as "other".
    """

    trades: tuple[Trade, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notices: tuple[Notice, ...] = ()
    trade_count: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    counts: Mapping[tuple[str, ...], int] = {}
    heard: tuple[tuple[str, str], ...] = ()
    """What was last told of which order: a trader that was restarted tells it again, and it counts once."""


class MonitorActor(Actor):
    """Takes Trade, Skipped, OrderEnded, StreamUp, StreamDown, Notice and the events about actors."""

    def __init__(self, context: Context, memory: Cell[MonitorMemory], mode: str) -> None:
        super().__init__(context)
        self._cell = memory
        self._log = structlog.get_logger().bind(mode=mode)
        self._handlers: dict[type, Callable[..., None]] = {
            Trade: self._on_trade,
            Skipped: self._on_skipped,
            OrderEnded: self._on_ended,
            StreamUp: self._on_stream_up,
            StreamDown: self._on_stream_down,
            Notice: self._on_notice,
            ActorStarted: self._on_actor_event,
            ActorStopped: self._on_actor_event,
            ActorFailed: self._on_actor_trouble,
            ActorRestarted: self._on_actor_trouble,
            ActorQuarantined: self._on_actor_trouble,
            DeadLetter: self._on_dead_letter,
            SymbolStopped: self._on_symbol_stopped,
        }

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def _on_trade(self, trade: Trade) -> None:
        """Tell a trade, and tell it anew where fills of its order were found late: it counts once all the same."""
        if self._is_heard(trade.client_order_id, f"TRADE {plain(trade.quantity)}"):
            return
        memory = self._cell.value
        others = tuple(one for one in memory.trades if one.client_order_id != trade.client_order_id)
        is_new = len(others) == len(memory.trades)
        self._keep(trades=(*others, trade)[-KEPT:], trade_count=memory.trade_count + is_new)
        if is_new:
            self._count("orders_filled", trade.symbol, trade.side.value)
        self._log.info(
            "trade" if is_new else "trade amended",
            symbol=trade.symbol,
            side=trade.side.value,
            price=plain(trade.price),
            quantity=plain(trade.quantity),
            quote_quantity=plain(trade.quote_quantity),
            commission=f"{plain(trade.commission)} {trade.commission_asset}",
            reason=trade.reason,
            client_order_id=trade.client_order_id,
        )

    def _on_skipped(self, skipped: Skipped) -> None:
        if self._is_heard(skipped.client_order_id, skipped.name):
            return
        self._count("signals_skipped", skipped.name)
        self._refuse(skipped.symbol, skipped.side.value, skipped.name, skipped.detail, skipped.event_time)

    def _on_ended(self, ended: OrderEnded) -> None:
        if self._is_heard(ended.client_order_id, ended.status):
            return
        if ended.status == OrderStatus.REJECTED:
            self._count("orders_rejected", code_of(ended.detail))
        else:
            self._count("orders_unfilled", ended.status)
        self._refuse(ended.symbol, "order", ended.status, ended.detail, ended.event_time)

    def _is_heard(self, client_order_id: str, what: str) -> bool:
        heard = self._cell.value.heard
        if (client_order_id, what) in heard:
            return True
        self._keep(heard=(*heard, (client_order_id, what))[-KEPT:])
        return False

    def _refuse(self, symbol: str, side: str, name: str, detail: str, event_time: int) -> None:
        memory = self._cell.value
        counts = dict(memory.skipped)
        counts[name] = counts.get(name, 0) + 1
        refusal = Refusal(symbol, side, name, detail, event_time)
        self._keep(refusals=(*memory.refusals, refusal)[-KEPT:], skipped=tuple(counts.items()))
        self._log.info("skipped", symbol=symbol, side=side, name=name, detail=detail)

    def _on_stream_up(self, up: StreamUp) -> None:
        self._log.info("stream up", stream=up.stream, connection=up.connection, symbols=_several(up.symbols))

    def _on_stream_down(self, down: StreamDown) -> None:
        symbols = _several(down.symbols)
        self._log.warning(
            "stream down", stream=down.stream, connection=down.connection, symbols=symbols, reason=down.reason
        )
        self._note(Notice(down.stream, "warning", f"stream of {symbols} down: {down.reason}", down.time))

    def _on_notice(self, notice: Notice) -> None:
        self._log.log({"info": 20, "warning": 30}.get(notice.level, 40), notice.text, source=notice.source)
        self._note(notice)

    def _on_actor_event(self, event: ActorStarted | ActorStopped) -> None:
        self._log.info(type(event).__name__, name=event.name, epoch=event.epoch)

    def _on_actor_trouble(self, event: ActorFailed | ActorRestarted | ActorQuarantined | DeadLetter) -> None:
        fields = asdict(event)
        self._log.warning(type(event).__name__, **fields)
        said = fields.get("error") or fields.get("reason") or f"restart {fields.get('restarts')}"
        self._note(Notice(event.name, "warning", f"{type(event).__name__}: {said}", event.time))

    def _on_dead_letter(self, letter: DeadLetter) -> None:
        self._count("dead_letters")
        self._on_actor_trouble(letter)

    def _on_symbol_stopped(self, stopped: SymbolStopped) -> None:
        self._log.error("SymbolStopped", symbol=stopped.symbol, reason=stopped.reason)
        self._note(Notice(stopped.name, "error", f"stopped: {stopped.reason}", stopped.time))

    def _note(self, notice: Notice) -> None:
        self._keep(notices=(*self._cell.value.notices, notice)[-KEPT:])

    def _count(self, *key: str) -> None:
        counts = self._cell.value.counts
        is_one_too_many = key not in counts and sum(known[0] == key[0] for known in counts) >= MOST_REASONS
        if is_one_too_many and key[0] in BY_REASON:
            key = (key[0], "other")
        self._keep(counts={**counts, key: counts.get(key, 0) + 1})

    def _keep(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))


def code_of(detail: str) -> str:
    """Return the exchange's error code that the text of a refusal begins with, "none" where it has none."""
    code = detail.partition(":")[0]
    return code if re.fullmatch(r"-\d{1,6}", code, re.ASCII) else "none"


def _several(symbols: tuple[str, ...]) -> str:
    return ",".join(symbols) if len(symbols) <= 3 else f"{symbols[0]} and {len(symbols) - 1} more"
