"""Frames among which most are garbage, through decoder, feed, trader and portfolio, to a gateway that records.

A bot that gets the valid frames alone is the measure: the same orders, decisions and messages taken, to the last digit.
What is valid is the judge's word (`judge.py`), what is newer is written here from the contract once more.
"""

from decimal import Decimal
from itertools import pairwise

import pytest

from bot.actors import addresses
from bot.actors.cells import Cell, FeedMemory
from bot.actors.feed import FeedActor, FeedSettings
from bot.actors.limits import BackfillGate
from bot.adapters.binance.stream import BadFrame, decode_frame
from bot.adapters.sqlite import SqliteJournal
from bot.domain.kline import Kline
from bot.ports import ShutdownAnnounced
from bot.supervision.testing import RecordingContext
from tests.fuzz.garbage import cases, nearly, written
from tests.fuzz.judge import UNSURE, VALID, verdict
from tests.support.builders import NOON
from tests.support.pump import Pump

pytestmark = pytest.mark.timeout(7200)
FRAMES = 40  # a run; each frame is a case
SYMBOL = "BTCUSDT"
TRADER = addresses.trader(SYMBOL)
DAY_MS = 86_400_000


class Bot:
    """Feed, trader and portfolio over a journal of their own."""

    def __init__(self, path):
        self.journal = SqliteJournal(path)
        self.pump = Pump(self.journal)
        self.cell = Cell(FeedMemory())
        self.context = RecordingContext(addresses.feed(SYMBOL), self.pump.clock, 1)
        # A live one, which asks nobody for what is missing: here klines go missing by intent.
        stream, gate, now_ms = addresses.stream(0), BackfillGate(), self.pump.clock.now_ms
        settings = FeedSettings(SYMBOL, "1m")
        self.feed = FeedActor(self.context, settings, self.cell, stream, None, gate, lambda: None, now_ms)
        self.feed.started()

    def take(self, kline):
        """As the reader thread tells the feed of it."""
        self.feed.handle(kline)
        for message in self.context.sent_to(TRADER):
            self.pump.kline(message)
        self.context.sent.clear()
        self.pump.run()

    def outcome(self):
        """All that it did: what it took, what it decided, what it sent and how that ended."""
        pump = self.pump
        taken = [message for message in pump.to_bridge if type(message).__name__ == "Taken"]
        return {
            "delivered": pump.delivered,
            "taken": [(t.kline, t.decision) for t in taken],
            "placed": pump.exchange.placed,
            "orders": [(e.intent, e.status, e.fills) for e in self.journal.settled()],
            "wallet": pump.wallet.value.cash,
        }


def frames_of(random):
    """A walk of prices with moves that trade, as frames; among them garbage, absurd values and old frames again."""
    price, open_time, sent = Decimal(64_000), NOON, []
    for _ in range(FRAMES):
        price = (price * (1 + Decimal(random.randrange(-200, 201)) / 10_000)).quantize(Decimal("0.01"))
        is_closed = random.random() < 0.2
        shown = str(price)
        if random.random() < 0.05:
            shown = random.choice(("0.00000001", "1", "640000000", "9" * 20, "64000.000000000000001", "0.01"))
        candle = {"t": open_time, "T": open_time + 59_999, "s": SYMBOL, "i": "1m", "x": is_closed}
        candle |= dict.fromkeys("ohlc", shown) | {"v": "1.0", "q": "2.0"}
        event_time = open_time + 60_001 if is_closed else open_time + random.randrange(60_000)
        frame = {"e": "kline", "E": event_time, "s": SYMBOL, "k": candle}
        step = random.random()
        if step < 0.45:
            data = nearly(frame, random)
        elif step < 0.55 and sent:
            data = random.choice(sent)
        elif step < 0.6:
            # Another symbol's, another interval's, and from the far future or past.
            candle |= random.choice(
                ({"i": "5m"}, {"s": "ETHUSDT"}, {"t": 5, "T": 59_999}, {"t": 10**13, "T": 10**13 + 59_999})
            )
            data = written({**frame, "s": candle["s"]}).encode()
        else:
            data = written(frame).encode()
        sent.append(data)
        if is_closed:
            open_time += 60_000
        yield data


def as_kline(event):
    """A valid event as a message, by the contract's words."""
    c = event["k"]
    times = int(c["t"]), int(c["T"]), int(c["T"] if c["x"] else event["E"])
    amounts = [Decimal(c[key]) for key in "ohlcvq"]
    return Kline(c["s"], c["i"], *times, *amounts, c["x"], int(event["E"]))


class Reference:
    """Which valid messages are taken: this symbol's and interval's, newer than the last, and not from another age."""

    def __init__(self):
        self.last = None

    def takes(self, kline):
        order = kline.open_time, kline.is_closed, kline.event_time
        if (kline.symbol, kline.interval) != (SYMBOL, "1m"):
            return False
        if self.last is not None and (order <= self.last or (self.last[1] and order[0] == self.last[0])):
            return False
        length = kline.close_time - kline.open_time + 1
        if length > 60_000 or not kline.open_time - length <= kline.event_time <= kline.close_time + length:
            return False
        if kline.open_time - max(NOON, self.last[0] if self.last else 0) > DAY_MS:
            return False
        self.last = order
        return True


def test_a_valid_frame_is_never_lost_and_an_invalid_one_never_traded_on(tmp_path):
    orders = 0
    for number, random in cases(0.08 / FRAMES, "trading"):
        frames = [data for data in frames_of(random) if verdict(data)[0] != UNSURE]
        paths = [tmp_path / f"{number}-{side}.db" for side in "ab"]
        met, spared = Bot(paths[0]), Bot(paths[1])
        reference, expected = Reference(), []
        try:
            for data in frames:
                sort, event = verdict(data)
                if sort == VALID and reference.takes(as_kline(event)):
                    expected.append(as_kline(event))
                    spared.take(expected[-1])
                kline = decoded(data)
                if kline is not None:
                    met.take(kline)
            assert met.pump.delivered == expected
            assert met.outcome() == spared.outcome()
            assert_each_order_has_its_signal(met, expected)
        except Exception as error:
            raise AssertionError(f"case {number}: " + "\n".join(map(repr, frames))[:20_000]) from error
        orders += len(met.pump.exchange.placed)
        for bot, path in zip((met, spared), paths, strict=True):
            bot.journal.close()
            for file in path.parent.glob(path.name + "*"):
                file.unlink()
    assert orders > 10


def decoded(data):
    """What the reader thread would tell the feed."""
    try:
        return decode_frame(data)
    except (BadFrame, ShutdownAnnounced):
        return None


def assert_each_order_has_its_signal(bot, taken):
    """Every order follows a pair of messages that asks for it: contract, section 1, Signal."""
    asks = {}
    for before, kline in pairwise(taken):
        if kline.close <= before.close * Decimal("0.99"):
            asks[kline.event_time] = "BUY"
        elif kline.close >= before.close * Decimal("1.01"):
            asks[kline.event_time] = "SELL"
    for entry in bot.journal.settled():
        assert asks.get(entry.intent.event_time) == entry.intent.side.value
