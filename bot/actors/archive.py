"""ArchiveActor: brings what is stored to a store elsewhere, DynamoDB, at its pace; nobody ever waits for it."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from bot.actors.cells import ArchiveMemory, Cell
from bot.actors.notices import Notices
from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.domain.throttle import Throttle
from bot.messages import LogEntry, Publish, Watch
from bot.ports import History, ItemsRefused, Link, Outbox, OutboxState, StoreBusy, StoreError
from bot.supervision import Actor, Context


class ArchiveSettings(msgspec.Struct, frozen=True):
    """A batch goes once it holds `batch` entries or its first one has waited `gather_ms`. Times in ms.

    A store that has too much to do gets smaller batches, down to `least`, after waits that grow from `retry_ms` to
    `longest_ms`; one that needs a person is tried every `refused_ms`. `patience_ms`: how long it may take nothing
    before that is told. What waits longer or takes more than `alarm_age_ms` or `alarm_bytes` is an alarm.
    """

    batch: int = 500
    least: int = 25
    gather_ms: int = 350
    retry_ms: int = 200
    longest_ms: int = 10_000
    refused_ms: int = 10_000
    watch_ms: int = 1_000
    patience_ms: int = 2_000
    stop_ms: int = 1_500
    alarm_age_ms: int = 60_000
    alarm_bytes: int = 100_000_000


class ArchiveActor(Actor):
    """Takes Publish; gives Notices of a store that goes away, comes back, or falls behind.

    It reads the outbox, trades before klines and each of both in order, and forgets of it what the store has, no more.
    So another incarnation or process may write again what the store has, which leaves one. Nothing is in memory but
    the batch that is being written.
    """

    def __init__(
        self,
        context: Context,
        settings: ArchiveSettings,
        memory: Cell[ArchiveMemory],
        outbox: Outbox,
        connect: Callable[[], History],
        rng: random.Random,
    ) -> None:
        """`connect` reaches the store and makes sure that it may be written; it raises as a write does.

        It is called before the first write, and again after each failure that needs a person: then keys, tables and
        rights may be new.
        """
        super().__init__(context)
        self._notices = Notices(context, Throttle(1, 60_000), "error")
        self._settings = settings
        self._cell = memory
        self._outbox = outbox
        self._connect = connect
        self._rng = rng
        self._history: History | None = None
        self._size = settings.batch
        self._failures = 0
        self._failed: type | None = None
        self._is_armed = False
        self._dropped: int | None = None  # as last told
        self._told_down: str | None = None
        self._told_alarm = False
        self._back_ms: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {Publish: self._on_publish, Watch: self._on_watch}

    def started(self) -> None:
        # Whoever hung or crashed must not keep connections.
        self.context.on_epoch_end(self._let_go)
        self._arm()
        self._on_watch(Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        clock, settings = self.context.clock, self._settings
        deadline = clock.monotonic_ms() + settings.stop_ms
        while not self._failures and self._outbox.depth and clock.monotonic_ms() < deadline:
            self._write()
        self._let_go()

    def _on_publish(self, publish: Publish) -> None:
        if publish.is_timer:
            self._is_armed = False
        is_due = publish.is_timer or (not self._failures and self._outbox.depth >= self._size)
        self._arm(at_once=is_due and self._write())

    def _arm(self, at_once: bool = False) -> None:
        """Go on when the next batch is due; a message for each, so that no handler takes long."""
        depth = self._outbox.depth
        if self._is_armed or not depth:
            return
        if at_once:
            wait_ms = 0
        elif self._failures:
            wait_ms = self._pause_ms()
        else:
            wait_ms = 0 if depth >= self._size else self._settings.gather_ms
        self._is_armed = True
        self.context.after(wait_ms, Publish(is_timer=True))

    def _pause_ms(self) -> int:
        settings = self._settings
        if self._cell.value.link == Link.REFUSED.value:
            return settings.refused_ms
        grown = settings.retry_ms << min(self._failures - 1, 20)
        return round(min(settings.longest_ms, grown) * self._rng.uniform(0.8, 1.0))

    def _write(self) -> bool:
        """Take the next step: connect, or write a batch and have the outbox forget it. True if more may be due."""
        kind: type | None = None
        try:
            kind, rows = self._next()
            if not rows:
                return False
            if self._history is None:
                self._history = self._connect()
                return True
            self._give(self._history, [entry for _, entry in rows])
            self.context.run_fenced(lambda: self._outbox.delivered(rows[-1][0], kind))
        except StoreBusy as error:
            self._size = max(self._settings.least, self._size // 2)
            self._on_failure(kind, Link.AWAY, error)
            return False
        except StoreError as error:
            self._let_go()
            self._on_failure(kind, Link.REFUSED, error)
            return False
        is_full = len(rows) == self._size
        if is_full:
            self._size = min(self._settings.batch, self._size * 2)
        self._on_written(kind, len(rows))
        return is_full or kind is Trade

    def _next(self) -> tuple[type, list[tuple[int, LogEntry]]]:
        trades = self._outbox.read(0, self._size, Trade)
        return (Trade, trades) if trades else (Kline, self._outbox.read(0, self._size, Kline))

    def _give(self, history: History, entries: Sequence[LogEntry]) -> None:
        klines = [entry for entry in entries if isinstance(entry, Kline)]
        trades = [entry for entry in entries if isinstance(entry, Trade)]
        self.context.check_fence()
        try:
            history.write(klines, trades)
        except ItemsRefused as error:
            # It has the others; these are in the local store only, and must not stop all that comes after them.
            self._remember(refused=self._cell.value.refused + len(error.items))
            self._notices.complain(f"{len(error.items)} items are kept in history.db only: {error}")

    def _on_written(self, kind: type, count: int) -> None:
        self._remember(archived=self._cell.value.archived + count)
        if self._failed not in (None, kind):
            return  # what klines are refused for is not over because a trade was taken
        self._failures, self._failed = 0, None
        self._remember(link=Link.UP.value, reason="")
        if self._cell.value.down_ms is not None:
            self._on_back(self.context.clock.now_ms(), self._cell.value.down_ms, self._outbox.depth + count)

    def _on_failure(self, kind: type | None, link: Link, error: StoreError) -> None:
        self._failures += 1
        self._failed = kind
        down_ms = self._cell.value.down_ms
        down_ms = self.context.clock.now_ms() if down_ms is None else down_ms
        self._remember(link=link.value, reason=str(error), down_ms=down_ms, failures=self._cell.value.failures + 1)

    def _let_go(self) -> None:
        history, self._history = self._history, None
        if history is not None:
            with suppress(StoreError):
                history.close()

    # What is told

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.watch_ms, Watch())
        memory, now = self._cell.value, self.context.clock.now_ms()
        try:
            state = self._outbox.state()
        except StoreError as error:
            self._notices.complain(f"what is to be archived cannot be read: {error}")
            return
        if memory.down_ms is not None:
            self._see_down(memory, now - memory.down_ms)
        self._see_alarm(state, now)
        self._see_dropped(state)
        if self._back_ms is not None and state.depth < self._settings.batch:
            self._remember(caught_up_ms=now - self._back_ms)
            self._back_ms = None
            self._notices.tell("info", "all that waited for DynamoDB is there")

    def _see_down(self, memory: ArchiveMemory, away_ms: int) -> None:
        """Tell that it takes nothing: once while it is away, again where something else needs a person."""
        needs_person = memory.link == Link.REFUSED.value
        cause = memory.reason if needs_person else ""
        if cause == self._told_down or not (needs_person or away_ms >= self._settings.patience_ms):
            return
        if self._told_down is None or needs_person:
            self._notices.tell("error", f"DynamoDB takes nothing, all waits on disk: {memory.reason}")
            self._told_down = cause

    def _on_back(self, now: int, down_ms: int, waited: int) -> None:
        if self._told_down is not None:
            self._notices.tell(
                "info", f"DynamoDB takes again after {(now - down_ms) / 1000:.0f} s: {waited} entries waited"
            )
            outages = self._cell.value.outages + 1
            self._remember(outages=outages, outage_ms=now - down_ms, waited=waited, caught_up_ms=None)
            self._back_ms = now
        self._told_down = None
        self._remember(down_ms=None)

    def _see_alarm(self, state: OutboxState, now: int) -> None:
        settings = self._settings
        age_ms = 0 if state.oldest_ms is None else now - state.oldest_ms
        grown = max(age_ms / settings.alarm_age_ms, state.bytes / settings.alarm_bytes)
        # Half of it ends the alarm, so that it does not come and go.
        is_alarm = grown >= 1 or (self._told_alarm and grown > 0.5)
        if is_alarm != self._cell.value.is_alarm:
            self._remember(is_alarm=is_alarm)
        if is_alarm and not self._told_alarm:
            waits = f"{state.depth} klines and trades ({state.bytes / 1e6:.1f} MB) wait for DynamoDB"
            why = self._cell.value.reason or "it takes less than comes; give it more write units"
            self._notices.tell("error", f"{waits}, the oldest for {age_ms / 1000:.0f} s: {why}")
        elif self._told_alarm and not is_alarm:
            self._notices.tell("info", f"only {state.depth} klines and trades wait for DynamoDB now")
        self._told_alarm = is_alarm

    def _see_dropped(self, state: OutboxState) -> None:
        told = self._dropped if self._dropped is not None else state.dropped
        if state.dropped == told or self._notices.complain(
            f"dynamodb.db is full ({state.bytes // 1_000_000} MB): the {state.dropped - told} oldest open klines in it "
            "will not be in DynamoDB, closed ones and trades will; mend what keeps it, or raise aws.outbox_bytes"
        ):
            self._dropped = state.dropped

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))
