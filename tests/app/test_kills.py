"""Actors killed while they trade, real threads and a real store: the outcome is that of a run without a kill."""

import random
import threading
from decimal import Decimal

import pytest

from bot.actors.portfolio import START_CASH_NOTE
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.app.replay import ReplayPlan, _Replay
from bot.app.trading import offline_rules
from bot.domain.money import plain
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.research.backtest import run_backtest
from bot.research.files import read_series
from bot.supervision import Address, KillRefused
from tests.app.test_replay import a_file

SYMBOLS = ("BTCUSDT", "ETHUSDT")
NAMES = ("feed/BTCUSDT", "trader/BTCUSDT", "trader/ETHUSDT", "portfolio", "bridge", "persistence", "monitor")


class Killing(_Replay):
    """A replay in which an actor is doomed before many a kline."""

    rng = random.Random(20210519)
    kills = 0

    def _inject(self, kline):
        if self.rng.random() < 0.25:
            try:
                how = self.rng.choice(("raise", "exit", "raise", "exit", "vanish"))
                self._system.kill(Address.parse(self.rng.choice(NAMES)), how)
                self.kills += 1
            except KillRefused:
                pass
        super()._inject(kline)


@pytest.mark.chaos
def test_kills_change_neither_trades_nor_books_nor_what_is_stored(tmp_path):
    rng = random.Random(7)
    paths = []
    for symbol in SYMBOLS:
        price, closes = Decimal(100), []
        for _ in range(90):
            price = (price * rng.choice((970, 985, 1000, 1012, 1025)) / 1000).quantize(Decimal("0.01"))
            closes.append(price)
        paths.append(a_file(tmp_path, symbol, closes))
    series = read_series(paths)
    rules = offline_rules(SYMBOLS, None)
    strategy, sizing = Scalping(Decimal("0.01"), Decimal("0.01")), SizingParameters(fraction=Decimal("0.4"))
    plan = ReplayPlan(series, rules, strategy, sizing, Decimal(10_000), "bot")
    directory = DataDirectory(tmp_path / "book")
    directory.claim(Identity("replay", "paper", "paper", "bot"))
    with SqliteStore(directory.history) as store, SqliteJournal(directory.orders) as journal:
        journal.set_note(START_CASH_NOTE, plain(plan.cash))
        replay = Killing(plan, directory, store, journal)
        replayed = replay.run(lambda done: None, threading.Event())
        assert store.kline_count() == 180
        assert {t.client_order_id for t in store.trades()} == {t.client_order_id for t in replayed.trades}
    directory.release()
    assert replay.kills >= 20
    tested = run_backtest(series, rules, strategy, sizing, Decimal(10_000)).as_json()
    assert len(tested["trades"]) > 20
    assert replayed.as_json() == tested
