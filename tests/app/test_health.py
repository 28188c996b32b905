"""One truth for systemd, a container and `status`: when a running bot is well, and who is told."""

import socket
from decimal import Decimal

import msgspec
import pytest

from bot.app.health import STALE_AFTER_MS, Watchdog, trouble
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


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        yield lambda: listener.recv(1_000).decode()


def test_systemd_is_told_and_fed_only_while_all_is_well(systemd):
    found = [None]
    watchdog = Watchdog(lambda: found[0])
    watchdog.ready()
    assert systemd() == "READY=1"
    assert systemd() == "WATCHDOG=1"
    found[0] = "bridge is down"
    while (said := systemd()) == "WATCHDOG=1":
        pass
    assert said == "STATUS=unwell: bridge is down"
    watchdog.stopping()
    while (said := systemd()).startswith("STATUS"):
        pass
    assert said == "STOPPING=1"


def test_without_systemd_nothing_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    watchdog = Watchdog(lambda: pytest.fail("nobody asked"))
    watchdog.ready()
    watchdog.stopping()
