"""The log of a whole bot: events about its actors are in it, and its files are nobody else's."""

import threading
import time

import pytest

from bot.adapters.local_log import LocalLog
from bot.app.data_directory import DataDirectoryError
from bot.app.system import BotSystem
from bot.config import load_settings
from bot.supervision import ActorFailed, ActorRestarted, ActorStarted, Address


@pytest.fixture
def new_bot(tmp_path):
    """Makes bots of mode demo on one data directory."""
    bots = []

    def make():
        flags = {"mode": "demo", "symbols": "BTCUSDT", "data_dir": tmp_path}
        bots.append(BotSystem(load_settings(flags, environment={}), allow_chaos=True))
        return bots[-1]

    yield make
    for bot in bots:
        bot.stop()


def wait_until(condition):
    pause, end = threading.Event(), time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.02)


def test_events_about_actors_are_in_the_log_and_leave_it_like_all_else(new_bot, monkeypatch):
    entries, append = [], LocalLog.append

    def recording(log, entry):
        entries.append(entry)
        return append(log, entry)

    monkeypatch.setattr(LocalLog, "append", recording)
    bot = new_bot()
    bot.start()
    bot._system.kill(Address.parse("trader/BTCUSDT"), "raise")
    wait_until(lambda: any(type(entry) is ActorRestarted for entry in entries))
    wait_until(lambda: bot.snapshot().log_depth == 0)
    started = [entry.name for entry in entries if type(entry) is ActorStarted]
    assert {"bridge", "trader/BTCUSDT", "feed/BTCUSDT"} <= set(started)
    assert [entry.name for entry in entries if type(entry) is ActorFailed] == ["trader/BTCUSDT"]


def test_a_start_removes_what_a_killed_bot_left_but_not_what_a_running_one_has(new_bot, tmp_path):
    (tmp_path / "spool").mkdir()
    left = tmp_path / "spool" / "00000001.spool"
    left.write_bytes(b"of a killed one")
    bot = new_bot()
    assert left.exists()
    bot.start()
    assert not left.exists()
    left.write_bytes(b"of the running one")
    with pytest.raises(DataDirectoryError):
        new_bot().start()
    assert left.exists()


def test_a_stopped_bot_leaves_no_file_of_its_log(new_bot, tmp_path, monkeypatch):
    bot = new_bot()
    bot.start()
    # As if the store had stood still for hours.
    for number in range(40_000):
        bot._log.append(ActorFailed("nobody", number, "handle", "", "x" * 100, number))
    monkeypatch.setattr(LocalLog, "read", lambda log, after, limit: (after, ()))
    assert list(tmp_path.glob("spool/*"))
    assert bot.stop() == ()
    assert list(tmp_path.glob("spool/*")) == []
