"""Whether a running bot is well: one truth for systemd's watchdog, a container's health check and `status`."""

import os
import socket
import threading
from collections.abc import Callable

from bot.actors import addresses
from bot.app.snapshot import Snapshot
from bot.supervision import ActorStatus

STALE_AFTER_MS = 120_000
"""How old the newest kline of all feeds may be, once the bot runs that long."""
DOWN_AFTER_MS = 30_000
"""How long an actor that all others need may be down or in one handler."""
ALL_NEED = tuple(
    str(address) for address in (addresses.BRIDGE, addresses.PERSISTENCE, addresses.PORTFOLIO, addresses.MONITOR)
)


def trouble(snapshot: Snapshot, now_ms: int) -> str | None:
    """Return in one line what is wrong with a running bot at `now_ms` (UTC), None if it is well.

    A symbol in quarantine is no reason to restart the process: all others trade on.
    """
    by_name = {actor.name: actor for actor in snapshot.actors}
    supervisor = by_name.get("supervisor")
    if supervisor is None or supervisor.state != "running" or supervisor.busy_ms > DOWN_AFTER_MS:
        return "the supervisor is dead or hangs"
    for name in ALL_NEED:
        if name not in by_name or _is_down(by_name[name]):
            return f"{name} is down: {by_name[name].last_error if name in by_name else 'never started'}"
    streams = [actor for actor in snapshot.actors if actor.kind == "stream"]
    if streams and all(actor.state == "quarantined" for actor in streams):
        return f"no stream runs: {streams[0].last_error}"
    feeds = {name for name, actor in by_name.items() if actor.kind == "feed" and actor.state != "quarantined"}
    fed = [view for view in snapshot.symbols if str(addresses.feed(view.symbol)) in feeds]
    newest = max((view.last_kline_ms or 0 for view in fed), default=0)
    if supervisor.uptime_ms > STALE_AFTER_MS and newest < now_ms - STALE_AFTER_MS:
        return f"no feed brought a kline for {STALE_AFTER_MS // 1000} s"
    return None


def _is_down(actor: ActorStatus) -> bool:
    return actor.state in ("quarantined", "stopped") or actor.busy_ms > DOWN_AFTER_MS


class Watchdog:
    """Tells systemd READY=1, WATCHDOG=1 and STOPPING=1 where it listens (NOTIFY_SOCKET, WATCHDOG_USEC); else nothing.

    The watchdog is fed only while `find_trouble` finds none. Source: sd_notify(3).
    """

    def __init__(self, find_trouble: Callable[[], str | None]) -> None:
        self._find_trouble = find_trouble
        self._stopping = threading.Event()
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000

    def ready(self) -> None:
        """The bot is started; from now on the watchdog is fed."""
        self._notify("READY=1")
        if self._address and self._period_s:
            threading.Thread(target=self._feed, name="watchdog", daemon=True).start()

    def stopping(self) -> None:
        """The bot stops in order."""
        self._stopping.set()
        self._notify("STOPPING=1")

    def _feed(self) -> None:
        while not self._stopping.wait(self._period_s):
            found = self._find_trouble()
            self._notify("WATCHDOG=1" if found is None else f"STATUS=unwell: {found}")

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        # A leading @ names a socket of the abstract kind.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.sendto(state.encode(), address)
