"""Whether a running bot is well, for a container's health check and `status`, and whether it is stuck, for systemd.

Stuck is what a restart of the process mends. Feeds without klines are no reason for one: mostly the exchange or the
network is away, the streams come back by themselves, and until then the bot is to tell what it owns and raise alarms.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

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


def stuck(actors: Sequence[ActorStatus]) -> str | None:
    """Return in one line why a bot with these actors must be restarted as a process, None if it need not be.

    A symbol in quarantine is no reason for it: all others trade on.
    """
    by_name = {actor.name: actor for actor in actors}
    supervisor = by_name.get("supervisor")
    if supervisor is None or supervisor.state != "running" or supervisor.busy_ms > DOWN_AFTER_MS:
        return "the supervisor is dead or hangs"
    for name in ALL_NEED:
        if name not in by_name or _is_down(by_name[name]):
            return f"{name} is down: {by_name[name].last_error if name in by_name else 'never started'}"
    streams = [actor for actor in actors if actor.kind == "stream"]
    if streams and all(actor.state == "quarantined" for actor in streams):
        return f"no stream runs: {streams[0].last_error}"
    return None


def trouble(snapshot: Snapshot, now_ms: int) -> str | None:
    """Return in one line what is wrong with a running bot at `now_ms` (UTC), None if it is well."""
    found = stuck(snapshot.actors)
    if found is not None:
        return found
    by_name = {actor.name: actor for actor in snapshot.actors}
    feeds = {name for name, actor in by_name.items() if actor.kind == "feed" and actor.state != "quarantined"}
    fed = [view for view in snapshot.symbols if str(addresses.feed(view.symbol)) in feeds]
    newest = max((view.last_kline_ms or 0 for view in fed), default=0)
    if by_name["supervisor"].uptime_ms > STALE_AFTER_MS and newest < now_ms - STALE_AFTER_MS:
        return f"no feed brought a kline for {STALE_AFTER_MS // 1000} s"
    return None


def _is_down(actor: ActorStatus) -> bool:
    return actor.state in ("quarantined", "stopped") or actor.busy_ms > DOWN_AFTER_MS


class Watchdog:
    """Tells systemd READY=1, WATCHDOG=1, STATUS= and STOPPING=1 where it listens (NOTIFY_SOCKET); else nothing.

    The watchdog is fed only if the supervisor has worked since it was fed last (`beats` grew) and `find_stuck` finds
    nothing: a thread of its own carries the word, it does not vouch for it. `find_trouble` is what STATUS= tells.
    Source: sd_notify(3), sd_watchdog_enabled(3).
    """

    def __init__(
        self, beats: Callable[[], int], find_stuck: Callable[[], str | None], find_trouble: Callable[[], str | None]
    ) -> None:
        self._beats = beats
        self._find_stuck = find_stuck
        self._find_trouble = find_trouble
        self._stopping = threading.Event()
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000 if meant else 0.0

    def ready(self) -> None:
        """The bot is started; from now on the watchdog is fed."""
        self._notify("READY=1\nSTATUS=well")
        if self._address and self._period_s:
            threading.Thread(target=self._feed, name="watchdog", daemon=True).start()

    def stopping(self) -> None:
        """The bot stops in order."""
        self._stopping.set()
        self._notify("STOPPING=1\nSTATUS=stopping in order")

    def _feed(self) -> None:
        fed_at = self._beats()
        while not self._stopping.wait(self._period_s):
            beats = self._beats()
            if beats != fed_at and self._find_stuck() is None:
                fed_at = beats
                self._notify("WATCHDOG=1")
            # In one line: a second one would be another word to systemd.
            self._notify(f"STATUS={' '.join(self._status().split())}")

    def _status(self) -> str:
        try:
            found = self._find_trouble()
        except Exception as error:  # a file that cannot be read: what it says must not cost the process its life
            return f"unknown: {error}"
        return "well" if found is None else f"unwell: {found}"

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        # A leading @ names a socket of the abstract kind.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Not worth an end: where nobody listens any more systemd itself will act.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.settimeout(1)
            notifier.sendto(state.encode(), address)
