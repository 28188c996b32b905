"""One truth for systemd, a container and `status`: when a running bot is well, and who is told."""

import socket
from decimal import Decimal
from functools import partial
from itertools import count

import msgspec
import pytest

from bot.app.health import STALE_AFTER_MS, Watchdog, stuck, trouble
from bot.app.snapshot import Snapshot, SymbolView
from bot.domain.position import Position
from bot.supervision import ActorStatus, Depth
from tests.support.builders import NOON

NAMES = ("supervisor", "monitor", "persistence", "bridge", "portfolio", "trader/BTCUSDT", "feed/BTCUSDT", "stream/0")
LONG = 10 * STALE_AFTER_MS


def an_actor(name, state="running", busy_ms=0, uptime_ms=LONG):
    return ActorStatus(name, name.split("/")[0], state, 1, 0, uptime_ms, Depth(), "boom", busy_ms, None, 0)


def a_snapshot(age_ms=1_000, uptime_ms=LONG, **changed):
    view = SymbolView("BTCUSDT", Decimal(1), None, Position(), NOON - age_ms, True)
    actors = tuple(changed.get(name.split("/")[0], an_actor(name, uptime_ms=uptime_ms)) for name in NAMES)
    return Snapshot("demo", 1, (view,), Decimal(0), Decimal(0), actors=actors)


def test_a_bot_that_runs_and_hears_is_well():
    assert trouble(a_snapshot(), NOON) is None


@pytest.mark.parametrize(
    ("snapshot", "says"),
    [
        (a_snapshot(supervisor=an_actor("supervisor", "stopped")), "supervisor"),
        (a_snapshot(supervisor=an_actor("supervisor", busy_ms=60_000)), "supervisor"),
        (a_snapshot(bridge=an_actor("bridge", "stopped")), "bridge"),
        (a_snapshot(persistence=an_actor("persistence", busy_ms=60_000)), "persistence"),
        (a_snapshot(portfolio=an_actor("portfolio", "quarantined")), "portfolio"),
        (a_snapshot(age_ms=STALE_AFTER_MS + 1), "kline"),
        (a_snapshot(stream=an_actor("stream/0", "quarantined")), "no stream runs: boom"),
        (msgspec.structs.replace(a_snapshot(), actors=()), "supervisor"),
    ],
)
def test_what_is_wrong_is_named(snapshot, says):
    assert says in trouble(snapshot, NOON)


def test_what_restarts_or_has_just_started_or_is_quarantined_is_no_reason_to_end_the_process():
    assert trouble(a_snapshot(bridge=an_actor("bridge", "restarting")), NOON) is None
    assert trouble(a_snapshot(age_ms=10 * STALE_AFTER_MS, uptime_ms=STALE_AFTER_MS - 1), NOON) is None
    assert trouble(a_snapshot(trader=an_actor("trader/BTCUSDT", "quarantined")), NOON) is None


def test_only_what_a_restart_mends_is_stuck():
    assert stuck(a_snapshot(age_ms=10 * STALE_AFTER_MS).actors) is None
    assert "bridge" in stuck(a_snapshot(bridge=an_actor("bridge", "stopped")).actors)
    assert "supervisor" in stuck(())


class Systemd:
    """The other end of the notify socket."""

    def __init__(self, listener):
        self._listener = listener

    def hears(self, wanted, timeout_s=60):
        """Return what was said until `wanted` came, that included."""
        self._listener.settimeout(timeout_s)
        said = []
        while not said or said[-1] != wanted:
            said.append(self._listener.recv(1_000).decode())
        return said

    def hears_no(self, unwanted):
        """Whether of the next words none is `unwanted`."""
        return unwanted not in [self._listener.recv(1_000).decode() for _ in range(5)]


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    name = str(tmp_path / "notify") if request.param == "path" else f"@bulkhead-{tmp_path.name}-{id(request)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield Systemd(listener)


def test_systemd_is_told_and_fed_while_the_supervisor_works(systemd):
    beats, trouble = count(), [None]
    watchdog = Watchdog(lambda: next(beats), lambda: None, lambda: trouble[0])
    watchdog.ready()
    assert systemd.hears("WATCHDOG=1") == ["READY=1\nSTATUS=well", "WATCHDOG=1"]
    trouble[0] = "no feed brought\na kline"
    systemd.hears("STATUS=unwell: no feed brought a kline")
    systemd.hears("WATCHDOG=1")
    watchdog.stopping()
    systemd.hears("STOPPING=1\nSTATUS=stopping in order")


def test_a_supervisor_that_takes_no_message_starves_the_watchdog(systemd):
    beats = [1]
    watchdog = Watchdog(lambda: beats[0], lambda: None, lambda: None)
    watchdog.ready()
    systemd.hears("STATUS=well")
    assert systemd.hears_no("WATCHDOG=1")
    beats[0] += 1
    systemd.hears("WATCHDOG=1")
    assert systemd.hears_no("WATCHDOG=1")
    watchdog.stopping()


def test_a_tree_that_is_stuck_starves_the_watchdog(systemd):
    beats, found = count(), ["bridge is down"]
    watchdog = Watchdog(lambda: next(beats), lambda: found[0], lambda: found[0])
    watchdog.ready()
    systemd.hears("STATUS=unwell: bridge is down")
    assert systemd.hears_no("WATCHDOG=1")
    found[0] = None
    systemd.hears("WATCHDOG=1")
    watchdog.stopping()


def test_a_health_that_cannot_be_told_is_no_reason_to_be_killed(systemd):
    def fail():
        raise OSError("the disk is gone")

    watchdog = Watchdog(partial(next, count()), lambda: None, fail)
    watchdog.ready()
    systemd.hears("STATUS=unknown: the disk is gone")
    systemd.hears("WATCHDOG=1")
    watchdog.stopping()


def test_the_watchdog_of_another_process_is_not_fed(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_PID", "1")
    watchdog = Watchdog(partial(next, count()), lambda: None, lambda: None)
    watchdog.ready()
    watchdog.stopping()
    assert "WATCHDOG=1" not in systemd.hears("STOPPING=1\nSTATUS=stopping in order")


@pytest.mark.parametrize("gone", [None, "/nowhere/notify"])
def test_where_nobody_listens_nothing_happens(monkeypatch, gone):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if gone:
        monkeypatch.setenv("NOTIFY_SOCKET", gone)
    watchdog = Watchdog(partial(next, count()), lambda: None, lambda: None)
    watchdog.ready()
    watchdog.stopping()
