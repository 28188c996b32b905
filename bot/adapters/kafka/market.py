"""Klines that another process published, as a stream; what is committed is what is stored.

A record comes again until its kline, or a newer one of its symbol, is stored; the feed drops what is not newer than
what it passed on. So each kline has its effect once, whenever the process is killed.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from bot.adapters.kafka.codec import Codec, CodecError
from bot.domain.kline import Kline, is_newer
from bot.domain.throttle import Throttle
from bot.messages import TOPICS
from bot.ports import Link, Record, StoreError, StreamClosed, TopicReader
from bot.supervision import Clock

TOPIC = TOPICS[Kline]
WINDOW = 500
"""So many klines of a symbol are on their way to the store: fewer than a feed's or trader's mailbox takes."""
READY = 5_000
"""So many more may wait here for that; then its records are left for later, so that the others go on."""
BATCH = 500
BLOCKED_BATCH = 50
PICKS = 100
"""After so many klines the clock is looked at, for commits."""
COMMIT_MS = 1_000
BLOCKED_MS = 20
POLL_S = 0.25
FIRST_POLL_S = 3.0
AWAY_MS = 10_000
COMPLAINTS, COMPLAINTS_MS = 3, 60_000


class KafkaMarketStream:
    """`ports.MarketStream` over a topic of klines."""

    def __init__(
        self,
        open_reader: Callable[[], TopicReader],
        codec: Codec,
        last_stored: Callable[[str], Kline | None],
        on_bad_record: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """`open_reader` joins the group; `last_stored` gives the last stored kline of a symbol; `on_bad_record` gets
        one line on each record that cannot be read.
        """
        self._open_reader = open_reader
        self._codec = codec
        self._last_stored = last_stored
        self._on_bad_record = on_bad_record
        self._clock = clock
        self.lags: Mapping[str, int] = {}
        """By topic, how many records on it are not stored yet, as last heard from the broker; none before that."""

    def connect(self, symbols: Sequence[str], interval: str) -> "KafkaKlines":
        """Join the group and read on where it committed last. Raises StreamClosed where the broker is away."""
        reader = self._open_reader()
        connection = KafkaKlines(
            reader,
            symbols,
            interval,
            self._codec,
            self._last_stored,
            self._on_bad_record,
            self._clock,
            self._note_lags,
        )
        connection.fetch(FIRST_POLL_S)
        state = reader.state()
        if state.link in (Link.AWAY, Link.REFUSED):
            connection.close()
            raise StreamClosed(state.reason)
        return connection

    def _note_lags(self, lags: Mapping[str, int]) -> None:
        self.lags = lags


class _Lane:
    """One symbol's records of one partition. `given` are on their way to the store, `ready` wait for that, in order.

    `left_from` is the offset from which on records were left for later, None where none was.
    """

    def __init__(self) -> None:
        self.ready: deque[tuple[int, Kline]] = deque()
        self.given: deque[tuple[int, Kline]] = deque()
        self.left_from: int | None = None

    def take(self, offset: int, kline: Kline) -> None:
        if self.left_from is not None:
            return
        if len(self.ready) >= READY:
            self.left_from = offset
        else:
            self.ready.append((offset, kline))

    def settle(self, stored: Kline | None) -> None:
        """Forget what is stored, or came after what is."""
        while self.given and stored is not None and not is_newer(self.given[0][1], stored):
            self.given.popleft()

    @property
    def first(self) -> int | None:
        """The offset of the first record that is not stored, None if all are."""
        for queue in (self.given, self.ready):
            if queue:
                return queue[0][0]
        return self.left_from


class KafkaKlines:
    """`ports.KlineConnection` over a member of a group. Read, and let go of, by the thread that made it."""

    def __init__(
        self,
        reader: TopicReader,
        symbols: Sequence[str],
        interval: str,
        codec: Codec,
        last_stored: Callable[[str], Kline | None],
        on_bad_record: Callable[[str], None],
        clock: Clock,
        on_lags: Callable[[Mapping[str, int]], None],
    ) -> None:
        self._reader = reader
        self._symbols = frozenset(symbols)
        self._interval = interval
        self._codec = codec
        self._last_stored = last_stored
        self._on_bad_record = on_bad_record
        self._clock = clock
        self._on_lags = on_lags
        self._owner = threading.get_ident()
        self._is_wanted = True
        self._is_open = True
        self._next: dict[tuple[str, int], int] = {}  # by topic and partition
        self._committed: dict[tuple[str, int], int] = {}
        self._lanes: dict[tuple[str, int], dict[str, _Lane]] = {}
        self._turn: Iterator[_Lane] = iter(())
        self._looked_ms = self._heard_ms = clock.monotonic_ms()
        self._picked = 0
        self._complaints = Throttle(COMPLAINTS, COMPLAINTS_MS)
        self._pause = threading.Event()
        self.received_ns = 0

    def receive(self) -> Kline | None:
        """Return the next kline; None where none came for a moment, or all wait for the store.

        Raises StreamClosed when it was closed, or the broker is away.
        """
        if not self._is_wanted:
            self.close()
            raise StreamClosed("closed")
        self._picked += 1
        if self._picked < PICKS and (kline := self._pick()) is not None:
            return kline
        self._picked = 0
        now = self._clock.monotonic_ms()
        is_blocked = any(lane.ready for lanes in self._lanes.values() for lane in lanes.values())
        if now - self._looked_ms >= (BLOCKED_MS if is_blocked else COMMIT_MS):
            self._settle()
        kline = self._pick()
        if kline is not None:
            return kline
        if is_blocked:
            # All that are here wait for the store; little more is taken, for symbols that have none here.
            self.fetch(0, BLOCKED_BATCH)
            self._pause.wait(BLOCKED_MS / 1000)
        else:
            self.fetch(POLL_S)
        self._check_link(now)
        return self._pick()

    def close(self) -> None:
        """End it. From another thread: `receive` does so and raises StreamClosed."""
        self._is_wanted = False
        if self._is_open and threading.get_ident() == self._owner:
            self._is_open = False
            self._settle()
            self._reader.close()

    def fetch(self, timeout_s: float, limit: int = BATCH) -> None:
        """Take in up to `limit` records that the broker has, waiting at most so long for the first of them."""
        records = self._reader.poll(limit, timeout_s)
        if records:
            self._heard_ms = self._clock.monotonic_ms()
            self.received_ns = time.perf_counter_ns()
        for record in records:
            self._take(record)

    def _take(self, record: Record) -> None:
        place = (record.topic, record.partition)
        lanes = self._lanes.get(place)
        if lanes is None:
            lanes = self._lanes[place] = {}
        if record.offset < self._next.get(place, 0):
            # The group gave the partition away and back: from where it committed on, all comes again.
            lanes.clear()
        self._next[place] = record.offset + 1
        try:
            kline = self._codec.decode(record)
        except CodecError as error:
            if self._complaints.admit(self._clock.monotonic_ms()) is not None:
                self._on_bad_record(str(error))
            return
        if isinstance(kline, Kline) and kline.symbol in self._symbols and kline.interval == self._interval:
            lane = lanes.get(kline.symbol)
            if lane is None:
                lane = lanes[kline.symbol] = _Lane()
            lane.take(record.offset, kline)

    def _pick(self) -> Kline | None:
        """Return a kline of a symbol that may have one more on its way; symbols take turns."""
        for _ in range(2):
            for lane in self._turn:
                if lane.ready and len(lane.given) < WINDOW:
                    offset, kline = lane.ready.popleft()
                    lane.given.append((offset, kline))
                    return kline
            self._turn = iter([lane for lanes in self._lanes.values() for lane in lanes.values()])
        return None

    def _check_link(self, now: int) -> None:
        state = self._reader.state()
        if state.link in (Link.AWAY, Link.REFUSED) and now - self._heard_ms >= AWAY_MS:
            self.close()
            raise StreamClosed(state.reason)
        for lanes in self._lanes.values():
            if any(lane.left_from is not None and not lane.ready and not lane.given for lane in lanes.values()):
                self.close()
                raise StreamClosed("a symbol was left behind and goes on now: read again from what is stored")

    def _settle(self) -> None:
        """Commit what is stored, and tell how much is not."""
        self._looked_ms = self._clock.monotonic_ms()
        waiting = {symbol for lanes in self._lanes.values() for symbol, lane in lanes.items() if lane.given}
        try:
            stored = {symbol: self._last_stored(symbol) for symbol in waiting}
        except StoreError:
            return  # persistence tells of it
        done, ends, lags = [], self._reader.ends(), Counter[str]()
        for place, lanes in self._lanes.items():
            firsts = []
            for symbol, lane in lanes.items():
                lane.settle(stored.get(symbol))
                if lane.first is not None:
                    firsts.append(lane.first)
            upto = min(firsts, default=self._next[place])
            lags[place[0]] += max(0, ends.get(place, 0) - upto)
            if upto > self._committed.get(place, 0):
                self._committed[place] = upto
                done.append(Record(*place, upto - 1, 0, None, None, ()))
        self._on_lags(lags)
        if done and not self._reader.commit(done):
            self._committed.clear()  # tried again
