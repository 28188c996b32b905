"""Streams cut, silent, repeating themselves and talking nonsense, over real sockets: no candle is lost or doubled.

The exchange is a process of its own, the bot is whole and trades nothing. Every cut hits all connections at once, and
comes at any moment, also while the last one is being mended; candles last a second, so that many end within a break. In
the end each closed candle of the exchange was taken by the trader once and in order, and stored once, to the last
decimal. Recovery is the time from a break to the first kline that the exchange made after it and the trader took, by
the stream; what the machine itself stood still meanwhile is not counted. The long form:

    BULKHEAD_CUTS=10000 pytest tests/chaos/test_feed_cuts.py -s

`BULKHEAD_SEED=N` takes other moments and another market.
"""

import json
import os
import random
import statistics
import threading
import time
from collections import defaultdict
from decimal import Decimal

import msgspec
import pytest
import requests
import structlog
import websocket

import bot.app.system as app
from benchmarks.unlimited_exchange import unlimited_exchange
from bot.actors.limits import ConnectionBudget
from bot.actors.monitor import MonitorActor
from bot.actors.trader import TraderActor
from bot.adapters.binance import BinanceMarketHistory
from bot.adapters.sqlite import SqliteStore
from bot.app.system import BotSystem
from bot.config import load_settings
from tests.chaos.stepping import await_true
from tests.integration.processes import pause
from tests.support.stalls import watched_stalls

CUTS = int(os.environ.get("BULKHEAD_CUTS", "200"))
SEED = int(os.environ.get("BULKHEAD_SEED") or 5)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
INTERVAL, INTERVAL_MS, UPDATE_MS = "1s", 1_000, 100
RECOVERED_WITHIN_MS = 3_000
PAGE_MS = 600_000
SLACK_MS = 500
SHUTDOWN_MS = 9_000
LONGEST_STALL_MS = 60_000
"""Of a machine: no silence of an exchange that is well."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300 + 2 * CUTS)]


class Wire:
    """The exchange, and a bot that listens to it; what traders took, and what the monitor heard of streams."""

    def __init__(self, ends, system):
        self.ends = ends
        self.system = system
        self.taken = defaultdict(list)
        self.streamed_ms = dict.fromkeys(SYMBOLS, 0)
        self.candles = defaultdict(dict)
        self.downs = []
        self.ups = 0
        self.questions = 0
        self._session = requests.Session()
        self._session.trust_env = False
        self._seen_until = 0

    def get(self, path, **params):
        answer = self._session.get(self.ends["rest_url"] + path, params=params, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fault(self, kind, **values):
        answer = self._session.post(self.ends["rest_url"] + "/sim/fault", json={"kind": kind, **values}, timeout=10)
        assert answer.status_code == 200, answer.text

    def last_ms(self, symbol):
        """When the exchange made the last kline that the trader took by the stream."""
        return self.streamed_ms[symbol]

    def look(self):
        """Note the exchange's own closed candles, before it forgets them."""
        now = self.get("/api/v3/time")["serverTime"]
        for symbol in SYMBOLS:
            start = max(self.candles[symbol], default=self._seen_until)
            params = {"symbol": symbol, "interval": INTERVAL, "startTime": start, "limit": 1000}
            for row in self.get("/api/v3/klines", **params):
                if row[6] < now:
                    self.candles[symbol][row[0]] = tuple(map(Decimal, (*row[1:6], row[7])))

    def await_candles(self, count=1):
        """Wait until each trader has taken candles of `count` whole intervals from now on."""
        due = (time.time_ns() // 1_000_000 // INTERVAL_MS + 1 + count) * INTERVAL_MS
        await_true(lambda: all(self.last_ms(symbol) >= due for symbol in SYMBOLS), 20, "candles go on")

    def recoveries(self, since_ms, began):
        """Wait until all traders have a kline made after `since_ms`, which was `began`; until when each waited."""
        waits = {}

        def is_back():
            now = time.monotonic()
            for symbol in SYMBOLS:
                if symbol not in waits and self.last_ms(symbol) > since_ms:
                    waits[symbol] = (began, now)
            return len(waits) == len(SYMBOLS)

        await_true(is_back, 60, lambda: f"all are back, not only {list(waits)}: {self.system.snapshot().notices[-5:]}")
        return list(waits.values())

    def assert_whole(self, data):
        """Each closed candle once and in order at the trader and in the store, as the exchange has it."""
        store = SqliteStore.read_only(data / "history.db")
        total = 0
        for symbol in SYMBOLS:
            taken, stored = self.taken[symbol], list(store.klines(symbol))
            assert [k for k in stored if k.is_closed] == [k for k in taken if k.is_closed]
            assert len(stored) == len(taken)
            closed = [kline for kline in taken if kline.is_closed]
            first, last = closed[0].open_time, closed[-1].open_time
            assert [kline.open_time for kline in closed] == list(range(first, last + 1, INTERVAL_MS))
            theirs = {opened: row for opened, row in self.candles[symbol].items() if first <= opened <= last}
            assert {k.open_time: (k.open, k.high, k.low, k.close, k.volume, k.quote_volume) for k in closed} == theirs
            trader, feed = self.system.memories.traders[symbol].value, self.system.memories.feeds[symbol].value
            # A trader drops what is not newer than the last one: all that it was given came in order.
            assert (trader.dropped, trader.taken, feed.passed) == (0, len(taken), len(taken))
            total += len(closed)
        assert all(actor.restarts == 0 for actor in self.system.snapshot().actors)
        return total


@pytest.fixture
def wire(tmp_path, monkeypatch, request):
    """`request.param`: the exchange's and the bot's life of a connection, and what silence is, all in ms."""
    exchange_life_ms, life_ms, slack_ms = getattr(request, "param", (86_400_000, 86_400_000, SLACK_MS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "ConnectionBudget", lambda clock: ConnectionBudget(clock, 1, 0))
    streams = BotSystem._streams

    def fast(system):
        # The exchange sends ten updates a second, not one: two without a kline are silence as soon.
        changes = {"update_ms": UPDATE_MS, "slack_ms": slack_ms, "life_ms": life_ms}
        # A market that paused is given longer the next time, on a slow machine too, and then a silence takes as long.
        changes["max_silence_ms"] = 2 * (2 * UPDATE_MS + slack_ms)
        return tuple(msgspec.structs.replace(settings, **changes) for settings in streams(system))

    monkeypatch.setattr(BotSystem, "_streams", fast)
    with unlimited_exchange(SYMBOLS, UPDATE_MS, SEED, exchange_life_ms) as ends, (tmp_path / "log").open("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        variables = {
            "BOT_EXCHANGE__REST_URL": ends["rest_url"],
            "BOT_EXCHANGE__WS_URL": ends["ws_url"],
            "BOT_API_KEY": ends["api_key"],
            "BOT_API_SECRET": ends["api_secret"],
            "BOT_BUY_DROP": "0.9",
        }
        flags = {"mode": "testnet", "symbols": SYMBOLS, "interval": INTERVAL, "data_dir": tmp_path / "data"}
        system = BotSystem(load_settings(flags, environment=variables))
        made = Wire(ends, system)
        listen(made, monkeypatch)
        try:
            system.start()
            made._seen_until = made.get("/api/v3/time")["serverTime"] - PAGE_MS
            made.await_candles()
            yield made
        finally:
            system.stop()
            structlog.reset_defaults()


def listen(wire, monkeypatch):
    """Have the wire note what traders take, what the monitor hears of streams, and what REST is asked."""
    take, up, down = TraderActor._take, MonitorActor._on_stream_up, MonitorActor._on_stream_down
    closed_klines = BinanceMarketHistory.closed_klines

    def took(trader, kline):
        wire.taken[kline.symbol].append(kline)
        # REST may bring a closed one while the stream is still down.
        wire.streamed_ms[kline.symbol] = kline.received_event_time or wire.streamed_ms[kline.symbol]
        take(trader, kline)

    def went_up(monitor, message):
        wire.ups += 1
        up(monitor, message)

    def went_down(monitor, message):
        wire.downs.append(message)
        down(monitor, message)

    def asked(*arguments):
        wire.questions += 1
        return closed_klines(*arguments)

    monkeypatch.setattr(TraderActor, "_take", took)
    monkeypatch.setattr(MonitorActor, "_on_stream_up", went_up)
    monkeypatch.setattr(MonitorActor, "_on_stream_down", went_down)
    monkeypatch.setattr(BinanceMarketHistory, "closed_klines", asked)


def nonsense(rng):
    """A frame that no client should believe: garbage, a piece of one, numbers that are none, what nobody asked for."""
    symbol, other = rng.sample(SYMBOLS, 2)
    begin = rng.choice((1_000, 9_000_000_000_000, time.time_ns() // 1_000_000_000 * 1_000))
    close = rng.choice(('"1"', '"NaN"', '"1e5"', "1", '"-1"', '"1_000"', "null"))
    name = rng.choice((symbol, other, "LTCUSDT", symbol.lower(), ""))
    text = (
        f'{{"e":"kline","E":{begin},"s":"{symbol}","k":{{"t":{begin},"T":{begin + 999},"s":"{name}","i":'
        f'"{rng.choice(("1s", "5m"))}","o":{close},"c":{close},"h":"1","l":"1","v":"1","q":"1","x":true}}}}'
    )
    if close == '"1"' and name in SYMBOLS:
        # A whole one would be a lie that nobody could tell from the truth; a piece of it is only broken.
        text = text[: rng.randrange(len(text) - 1)]
    return rng.choice((text, text[: rng.randrange(len(text) + 1)], "[" * 10_000, "no JSON", "{}", '{"result":[]}'))


def trouble(wire, rng):
    kind = rng.choice(("ws_frame", "ws_frame", "ws_duplicate", "ws_late"))
    wire.fault(kind, **({"text": nonsense(rng)} if kind == "ws_frame" else {"count": rng.randrange(1, 40)}))


@pytest.fixture
def stalls():
    with watched_stalls() as stalls:
        yield stalls


def test_cuts_silences_and_nonsense_cost_no_candle(wire, stalls, tmp_path):
    rng = random.Random(SEED)
    print(f"\nBULKHEAD_SEED={SEED} BULKHEAD_CUTS={CUTS}")
    cuts, silences, began, rounds = [], [], time.monotonic(), 0
    while len(wire.downs) < CUTS:
        rounds += 1
        if rounds % 100 == 0:
            wire.look()
            print(f"{time.monotonic() - began:6.0f} s  {len(wire.downs)} cuts")
        for _ in range(rng.randrange(3)):
            trouble(wire, rng)
        pause(rng.uniform(0, 0.1))
        is_silence = rounds % 10 == 5
        if is_silence:
            wire.fault("ws_silent", ms=3_600_000)
        else:
            wire.fault("ws_cut")
        now, since = time.time_ns() / 1e6, time.monotonic()
        if rng.random() < 0.2 and not is_silence:
            pause(rng.uniform(0, 0.3))
            wire.fault("ws_cut")  # amid the recovery
        (silences if is_silence else cuts).extend(wire.recoveries(now, since))
    took_s = time.monotonic() - began
    wire.await_candles(2)
    assert wire.system.stop() == ()
    wire.look()
    candles = wire.assert_whole(tmp_path / "data")
    dropped = sum(cell.value.dropped for cell in wire.system.memories.feeds.values())
    print(
        f"{len(wire.downs)} cuts of a connection and {len(silences)} silences in {took_s:.0f} s, {candles} candles, "
        f"{wire.questions} questions to REST, {dropped} klines dropped"
    )
    cuts = [1_000 * (until - since - stalls.within(since, until)) for since, until in cuts]
    silences = [1_000 * (until - since - stalls.within(since, until)) for since, until in silences]
    show("recovery after a cut", cuts)
    show("recovery after silence", silences)
    assert max(cuts) < RECOVERED_WITHIN_MS
    assert max(silences) < RECOVERED_WITHIN_MS
    assert wire.questions > CUTS // 50
    assert dropped > CUTS // 10, "the repeated ones were there"


def show(what, waits):
    deciles = statistics.quantiles(waits, n=100)
    print(f"{what}, ms: median {deciles[49]:.0f}, p90 {deciles[89]:.0f}, p99 {deciles[98]:.0f}, max {max(waits):.0f}")


class Witness:
    """A plain client that notes every kline update of the exchange, to be compared with what traders took.

    Told of a shutdown it opens another connection, and reads the old one to its end.
    """

    def __init__(self, ends):
        names = "/".join(f"{symbol.lower()}@kline_{INTERVAL}" for symbol in SYMBOLS)
        self._url = f"{ends['ws_url']}/stream?streams={names}"
        self._seen = defaultdict(set)
        self._is_over = False
        self._open()

    def _open(self):
        self._socket = websocket.create_connection(self._url, timeout=10)
        self._thread = threading.Thread(target=self._read, args=(self._socket,), daemon=True)
        self._thread.start()

    def _read(self, socket):
        while not self._is_over:
            try:
                data = json.loads(socket.recv() or "{}").get("data")
            except websocket.WebSocketConnectionClosedException:
                data = None
            if data is None:
                break
            if data["e"] == "serverShutdown":
                self._open()
            else:
                candle = data["k"]
                self._seen[data["s"]].add((candle["t"], candle["x"], data["E"], Decimal(candle["c"])))
        socket.close()

    def updates(self, symbol):
        """What came, in the order in which messages are taken."""
        return sorted(self._seen[symbol])

    def has_seen(self, moment_ms):
        """Whether every symbol has an update that was made then or later."""
        return all(max((update[2] for update in self.updates(symbol)), default=0) >= moment_ms for symbol in SYMBOLS)

    def close(self):
        self._is_over = True
        self._thread.join(10)


@pytest.mark.parametrize("wire", [(86_400_000, 3_000, LONGEST_STALL_MS)], indirect=True)
def test_a_connection_replaced_in_time_loses_and_doubles_no_update(wire, tmp_path):
    """The exchange shuts down several times, as it announced, and the bot's connections grow old as well."""
    ups = wire.ups
    witness = Witness(wire.ends)
    wire.await_candles()
    begun = time.time_ns() // 1_000_000
    for _ in range(3):
        pause(3)
        wire.fault("server_shutdown", ms=SHUTDOWN_MS)
    # Each connection since then grows old.
    pause(4)
    wire.await_candles(2)
    ended = min(wire.last_ms(symbol) for symbol in SYMBOLS) - 500
    await_true(lambda: witness.has_seen(ended), 60, "the witness has read as far")
    witness.close()
    assert wire.system.stop() == ()
    wire.look()
    wire.assert_whole(tmp_path / "data")
    reasons = [n.text for n in wire.system.memories.monitor.value.notices if "replaces" in n.text]
    assert sum("server shutdown" in reason for reason in reasons) >= 2 * len(SYMBOLS), "not all at an old one's end"
    assert sum("24 h" in reason for reason in reasons) >= len(SYMBOLS)
    assert ([down.reason for down in wire.downs], wire.ups) == ([], ups), "no break was seen by anybody"
    for symbol in SYMBOLS:
        ours = [
            (k.open_time, k.is_closed, k.received_event_time, k.close)
            for k in wire.taken[symbol]
            if begun < (k.received_event_time or k.event_time) < ended
        ]
        theirs = [update for update in witness.updates(symbol) if begun < update[2] < ended]
        assert ours == theirs
        assert len(ours) > 80
    assert wire.questions <= len(SYMBOLS), "nothing had to be fetched after the start"


@pytest.mark.parametrize("wire", [(12_000, 2_500, LONGEST_STALL_MS)], indirect=True)
def test_the_exchanges_own_end_of_a_connection_never_comes(wire, tmp_path):
    pause(13)
    wire.await_candles()
    assert wire.system.stop() == ()
    wire.look()
    wire.assert_whole(tmp_path / "data")
    assert wire.downs == []
