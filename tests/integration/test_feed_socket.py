"""The feed over a real websocket that is cut, falls silent, repeats itself and talks nonsense: the store is right."""

import random
import time
from decimal import Decimal

import pytest
import requests

from bot.adapters.sqlite import SqliteStore
from bot.app.system import BotSystem
from bot.config import load_settings
from bot.simulator import SimulatedExchange, SimulatorConfig
from tests.integration.processes import SYMBOLS, pause, wait_until

INTERVAL, INTERVAL_MS = "1s", 1000
NONSENSE = (
    "no JSON at all",
    '{"e":"kline","E":1',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1,"T":2,"s":"BTCUSDT","i":"1s","o":"NaN"}}',
    "[" * 10_000,
    # Well made, but nobody here asked for them, and nothing would be newer than the second one.
    *(
        f'{{"e":"kline","E":1,"s":"{symbol}","k":{{"t":{begin},"T":{begin + 999},"s":"{symbol}","i":"{interval}",'
        '"o":"1","c":"1","h":"1","l":"1","v":"1","q":"1","x":true}}'
        for symbol, interval, begin in (("LTCUSDT", "1s", 1_000), ("BTCUSDT", "5m", 9_000_000_000_000))
    ),
)


class Market:
    """A simulated exchange of this process and a bot that listens to it over real sockets."""

    def __init__(self, ends, system):
        self.url = ends.rest_url
        self.system = system

    def fault(self, kind, **values):
        answer = requests.post(f"{self.url}/sim/fault", json={"kind": kind, **values}, timeout=5)
        assert answer.status_code == 200, answer.text

    def closed(self, symbol, start):
        """The exchange's own closed candles from `start` (ms) on, by open time."""
        params = {"symbol": symbol, "interval": INTERVAL, "startTime": start, "limit": 1000}
        rows = requests.get(f"{self.url}/api/v3/klines", params=params, timeout=5).json()
        now = requests.get(f"{self.url}/api/v3/time", timeout=5).json()["serverTime"]
        return {row[0]: tuple(map(Decimal, (*row[1:6], row[7]))) for row in rows if row[6] < now}

    def await_candles(self, count=1):
        """Wait until each symbol's trader has taken candles of `count` whole intervals from now on."""
        due = (time.time_ns() // 1_000_000 // INTERVAL_MS + 1 + count) * INTERVAL_MS
        traders = self.system.memories.traders
        wait_until(lambda: all(self._has(traders[symbol].value.last, due) for symbol in SYMBOLS), 15, "candles go on")

    @staticmethod
    def _has(last, due):
        return last is not None and last.event_time >= due


@pytest.fixture
def market(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exchange = SimulatedExchange(SimulatorConfig(seed=11, interval_ms=100))
    ends = exchange.start()
    variables = {
        "BOT_EXCHANGE__REST_URL": ends.rest_url,
        "BOT_EXCHANGE__WS_URL": ends.ws_url,
        "BOT_API_KEY": ends.api_key,
        "BOT_API_SECRET": ends.api_secret,
        "BOT_FEED_SILENCE": "3",
    }
    flags = {"mode": "testnet", "interval": INTERVAL, "data_dir": tmp_path / "data"}
    system = BotSystem(load_settings(flags, environment=variables))
    try:
        system.start()
        yield Market(ends, system)
    finally:
        system.stop()
        exchange.stop()


@pytest.mark.slow
def test_each_closed_candle_once_and_in_order(market, tmp_path):
    rng = random.Random(5)
    market.await_candles()
    # More than all frames of a second: the closing ones are among them.
    market.fault("ws_duplicate", count=60)
    market.fault("ws_late", count=60)
    for text in NONSENSE:
        market.fault("ws_frame", text=text)
    market.await_candles()
    for _ in range(3):
        pause(rng.uniform(0, 1))
        market.fault("ws_cut")
    market.await_candles()
    market.fault("ws_silent", ms=60_000)
    market.await_candles(2)

    assert market.system.stop() == ()
    store = SqliteStore.read_only(tmp_path / "data" / "history.db")
    for symbol in SYMBOLS:
        klines = list(store.klines(symbol))
        closed = [kline for kline in klines if kline.is_closed]
        first, last = closed[0].open_time, closed[-1].open_time
        assert [kline.open_time for kline in closed] == list(range(first, last + 1, INTERVAL_MS))
        assert len(closed) >= 8
        theirs = market.closed(symbol, first)
        ours = {k.open_time: (k.open, k.high, k.low, k.close, k.volume, k.quote_volume) for k in closed}
        assert ours == {opened: values for opened, values in theirs.items() if opened <= last}
        trader, feed = market.system.memories.traders[symbol].value, market.system.memories.feeds[symbol].value
        # A trader drops what is not newer than the last one: all that it was given is stored, and came in order.
        assert (trader.dropped, trader.taken) == (0, len(klines))
        assert feed.passed == len(klines)
        assert feed.dropped >= 10, "the repeated ones were there"
    notices = [notice.text for notice in market.system.memories.monitor.value.notices]
    assert any("refused" in text for text in notices), notices
    assert all(actor.restarts == 0 for actor in market.system.snapshot().actors)
