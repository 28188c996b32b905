"""PersistenceActor: the only writer of the store, in batches; it also watches the disk and lets old rows go."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from bot.actors import addresses
from bot.domain.decision import Decision
from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.messages import BookEvent, DiskSpace, Flush, LogEntries, LogEntry, Notice, Publish, ReplayLog, Stored, Watch
from bot.ports import Outbox, Store, StoreError
from bot.supervision import Actor, Address, Context


class PersistenceSettings(msgspec.Struct, frozen=True):
    """What comes is written at once, but no sooner than `batch_ms` after the last batch unless it is `batch_items`."""

    batch_items: int = 500
    batch_ms: int = 200
    retry_ms: int = 1_000
    watch_ms: int = 10_000
    min_free_bytes: int = 500_000_000
    keep_open_klines_ms: int = 7 * 86_400_000
    keep_events_ms: int = 30 * 86_400_000
    prune_every_ms: int = 3_600_000


def by_table(
    entries: Iterable[LogEntry],
) -> tuple[list[Kline], list[Trade], list[Decision], list[BookEvent]]:
    """Return log entries as `Store.write` takes them, each kind in its order."""
    klines: list[Kline] = []
    trades: list[Trade] = []
    decisions: list[Decision] = []
    events: list[BookEvent] = []
    for entry in entries:
        if isinstance(entry, Kline):
            klines.append(entry)
        elif isinstance(entry, Trade):
            trades.append(entry)
        elif isinstance(entry, Decision):
            decisions.append(entry)
        else:
            events.append(entry)
    return klines, trades, decisions, events


class Outlet(msgspec.Struct, frozen=True):
    """Where else what is stored goes: what waits for it, and the actor that takes it there and hears Publish."""

    outbox: Outbox
    reader: Address


def settle(store: Store, outboxes: Sequence[Outbox], now_ms: int) -> None:
    """Give store and outboxes what a process that died gave to some of them only. Before the log begins anew.

    Raises StoreError; it may be called again then.
    """
    left = [outbox.unconfirmed() for outbox in outboxes]
    for outbox in outboxes:
        for entries in left:
            outbox.complete(entries, now_ms)
    for entries in left:
        if entries:
            store.write(*by_table(entries))
    confirm(outboxes)


def confirm(outboxes: Sequence[Outbox]) -> None:
    """Confirm what was added, the first outbox last: so it has all that any of them has not confirmed."""
    for outbox in reversed(outboxes):
        outbox.confirm()


class PersistenceActor(Actor):
    """Takes LogEntries; gives Stored once they are written, DiskSpace when the free space crosses the limit.

    What the store does not take is kept and tried again; nothing is acknowledged that was not written. With `outlets`
    a batch is kept in the outbox of each before it is stored, and may go on after: whenever the process dies, the next
    one has it in all of them and in the store, or nowhere.
    """

    def __init__(
        self,
        context: Context,
        settings: PersistenceSettings,
        store: Store,
        free_bytes: Callable[[], int],
        now_ms: Callable[[], int],
        outlets: Sequence[Outlet] = (),
    ) -> None:
        super().__init__(context)
        self._settings = settings
        self._store = store
        self._outlets = outlets
        self._free_bytes = free_bytes
        self._now_ms = now_ms
        self._entries: list[LogEntry] = []
        self._upto = 0
        self._stored = 0
        self._flush_due = False
        self._wrote_ms = -settings.batch_ms
        self._failing = False
        self._disk_low: bool | None = None
        self._pruned_ms = -settings.prune_every_ms
        self._handlers: dict[type, Callable[..., None]] = {
            LogEntries: self._on_entries,
            Flush: self._on_flush,
            Watch: self._on_watch,
        }

    def started(self) -> None:
        self.context.tell(addresses.BRIDGE, ReplayLog())
        self._on_watch(Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        self._write()

    def _on_entries(self, batch: LogEntries) -> None:
        if batch.upto <= self._upto:
            return
        # A new incarnation of the bridge sends all that is not stored, also what is here already.
        self._entries += batch.entries[-(batch.upto - self._upto) :]
        self._upto = batch.upto
        if self._flush_due and (self._failing or len(self._entries) < self._settings.batch_items):
            return
        wait_ms = self._wrote_ms + self._settings.batch_ms - self.context.clock.monotonic_ms()
        if wait_ms <= 0 or len(self._entries) >= self._settings.batch_items:
            self._write()
        else:
            self._flush_due = True
            self.context.after(wait_ms, Flush())

    def _on_flush(self, _: Flush) -> None:
        self._flush_due = False
        self._write()

    def _write(self) -> None:
        if self._stored == self._upto:
            return
        self._wrote_ms = self.context.clock.monotonic_ms()
        try:
            self.context.check_fence()
            for outlet in self._outlets:
                outlet.outbox.add(self._upto, self._entries, self._now_ms())
            self._store.write(*by_table(self._entries))
            confirm([outlet.outbox for outlet in self._outlets])
        except StoreError as error:
            if not self._failing:
                self._failing = True
                self._notice("error", f"the store takes nothing, {len(self._entries)} items wait: {error}")
            if not self._flush_due:
                self._flush_due = True
                self.context.after(self._settings.retry_ms, Flush())
            return
        if self._failing:
            self._failing = False
            self._notice("info", "the store takes klines and trades again")
        self._entries = []
        self._stored = self._upto
        self.context.tell(addresses.BRIDGE, Stored(self._upto))
        for outlet in self._outlets:
            self.context.tell(outlet.reader, Publish())

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.watch_ms, Watch())
        free = self._free_bytes()
        is_low = free < self._settings.min_free_bytes
        if is_low != self._disk_low:
            before, self._disk_low = self._disk_low, is_low
            # Told by every incarnation: it cannot know what the last one said.
            self.context.tell(addresses.PORTFOLIO, DiskSpace(free, is_low))
            if is_low:
                self._notice("error", f"only {free // 1_000_000} MB of disk are free: no entries until there is more")
            elif before is not None:
                self._notice("info", "there is disk space again: entries are allowed")
        now = self.context.clock.monotonic_ms()
        if now - self._pruned_ms >= self._settings.prune_every_ms:
            self._pruned_ms = now
            try:
                today = self._now_ms()
                self._store.prune(today - self._settings.keep_open_klines_ms, today - self._settings.keep_events_ms)
            except StoreError as error:
                self._notice("warning", f"old open klines and events were not deleted: {error}")

    def _notice(self, level: str, text: str) -> None:
        self.context.tell(addresses.MONITOR, Notice("persistence", level, text, self.context.clock.now_ms()))
