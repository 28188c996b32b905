"""KafkaBridgeActor: keeps the log of klines and trades, and feeds persistence from it at the pace of the store."""

from collections.abc import Callable

from bot.actors import addresses
from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.messages import LogEntries, ReplayLog, Stored
from bot.ports import EventLog
from bot.supervision import Actor, Context

BATCH = 2_000


class KafkaBridgeActor(Actor):
    """Takes Kline, Trade, Stored, ReplayLog; gives LogEntries.

    One batch of at most BATCH entries is with persistence at a time; what comes meanwhile waits in the log, which
    outlives both actors, and makes the next batch: the more there is to store, the fewer messages it takes.
    """

    def __init__(self, context: Context, log: EventLog) -> None:
        super().__init__(context)
        self._log = log
        self._sent = 0
        self._handlers: dict[type, Callable[..., None]] = {
            Kline: self._on_entry,
            Trade: self._on_entry,
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

    def _on_entry(self, entry: Kline | Trade) -> None:
        self._log.append(entry)
        self._send()

    def _on_stored(self, stored: Stored) -> None:
        self._log.release(stored.upto)
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
