"""KafkaBridgeActor: keeps the log of all that is to be stored; feeds persistence at the pace of the store."""

from collections.abc import Callable

from bot.actors import addresses
from bot.messages import ENTRY_TYPES, LogEntries, LogEntry, Notice, ReplayLog, Stored, Taken
from bot.ports import EventLog
from bot.supervision import Actor, Context

BATCH = 2_000


class KafkaBridgeActor(Actor):
    """Takes Taken, log entries of all types, Stored, ReplayLog; gives LogEntries, and a Notice when it spills to disk.

    One batch of at most BATCH entries is with persistence at a time; what comes meanwhile waits in the log, which
    outlives both actors, and makes the next batch: the more there is to store, the fewer messages it takes.

    A full log fails the bridge, and soon the process: a log that left something out would have a hole in the store
    that nobody fills, whereas a new process fetches all closed klines behind the last stored one.
    """

    def __init__(self, context: Context, log: EventLog) -> None:
        super().__init__(context)
        self._log = log
        self._sent = 0
        # The last incarnation told of what is on disk now.
        self._spilling = log.spilled_bytes > 0
        self._handlers: dict[type, Callable[..., None]] = {
            **dict.fromkeys(ENTRY_TYPES, self._on_entry),
            Taken: self._on_taken,
            Stored: self._on_stored,
            ReplayLog: self._on_replay,
        }

    def started(self) -> None:
        self._on_replay(ReplayLog())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        # Persistence stops after the bridge and writes what it has then: nobody will ask for the rest later.
        while self._send_batch():
            pass
        left = self._log.released + self._log.depth - self._sent
        if left:
            self._notice(
                "warning",
                f"{left} entries of the log are not stored at the stop, the store is too far behind: "
                "the next start fetches closed klines again, and trades are in the journal",
            )

    def _on_taken(self, taken: Taken) -> None:
        # The decision first: a kline that is stored has its decision stored.
        if taken.decision is not None:
            self._log.append(taken.decision)
        self._on_entry(taken.kline)

    def _on_entry(self, entry: LogEntry) -> None:
        self._log.append(entry)
        if not self._spilling and self._log.spilled_bytes:
            self._spilling = True
            self._notice("error", f"the store is far behind: {self._log.depth} entries wait, from now on also on disk")
        self._send()

    def _on_stored(self, stored: Stored) -> None:
        self._log.release(stored.upto)
        # Not told while much waits in memory: a store that is just fast enough would have it told again and again.
        if self._spilling and not self._log.spilled_bytes and self._log.depth <= BATCH:
            self._spilling = False
            self._notice("info", "the store has caught up: nothing of the log waits on disk any more")
        self._send()

    def _on_replay(self, _: ReplayLog) -> None:
        self._sent = self._log.released
        self._send()

    def _send(self) -> None:
        if self._sent <= self._log.released:
            self._send_batch()

    def _send_batch(self) -> bool:
        upto, entries = self._log.read(self._sent, BATCH)
        if not entries or not self.context.tell(addresses.PERSISTENCE, LogEntries(upto, entries)):
            return False
        self._sent = upto
        return True

    def _notice(self, level: str, text: str) -> None:
        self.context.tell(addresses.MONITOR, Notice("bridge", level, text, self.context.clock.now_ms()))
