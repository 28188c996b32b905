"""`run`: the bot until a signal, a time or a failure ends it; a live view on a terminal, log lines elsewhere."""

import argparse
import gc
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from bot.app.account import limits_of_live
from bot.app.keys import need_keys
from bot.app.reaching import StartCancelled
from bot.app.snapshot import Snapshot
from bot.app.system import BotSystem
from bot.cli.logs import log_to_file, log_to_output
from bot.cli.signals import stopped_by_signals
from bot.cli.view import LiveView, summary
from bot.config import ConfigError, Mode, Settings
from bot.domain.money import plain
from bot.supervision import log_thread_tracebacks

HEARTBEAT_S = 10.0


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run the bot; 0 after an orderly stop, 1 if it had to give up."""
    _refuse_unready(settings, arguments.yes_real_money)
    # Actors hand messages to one another: a busy thread must not hold the others up for the default 5 ms.
    sys.setswitchinterval(0.0005)
    on_terminal = sys.stdout.isatty()
    whose = {"mode": settings.mode.value, "bot_id": settings.bot_id}
    if settings.log.file is not None or on_terminal:
        _log_to_file(settings.log.file or settings.directory / "bulkhead.log", whose)
    else:
        log_to_output(whose)
    system = BotSystem(settings, allow_chaos=arguments.allow_chaos, say=_say)
    began = time.monotonic()
    # Who hangs where: every thread's stack, by its actor's name, in the log.
    signal.signal(signal.SIGUSR1, log_thread_tracebacks)
    with stopped_by_signals() as stop:
        try:
            system.start(cancelled=stop)
        except StartCancelled:
            print("stopped before it had started", file=sys.stderr)
            return 0
        # All that is here now stays: a full collection would look through it for 20 ms, between a frame and its order.
        gc.collect()
        gc.freeze()
        if settings.mode is not Mode.DEMO:
            print(f"compare_on = {settings.compare_on}: {_compare_line(settings)}", file=sys.stderr)
        try:
            if arguments.seconds is not None:
                _stop_after(stop, arguments.seconds)
            if arguments.flatten:
                system.flatten()
            _show_until(system, stop, on_terminal, until_flat=arguments.flatten)
        finally:
            abandoned = system.stop()
    # Read only now: what was in flight when it was stopped has come to its end.
    print(summary(system.snapshot(), time.monotonic() - began, settings.directory), flush=True)
    if abandoned:
        print(f"these actors would not stop and were left behind: {', '.join(abandoned)}", file=sys.stderr)
    if system.failed.is_set():
        print(f"the bot gave up: {system.failure}", file=sys.stderr)
        return 1
    return 0


def _refuse_unready(settings: Settings, yes_real_money: bool) -> None:
    if settings.mode is not Mode.LIVE:
        return
    if not yes_real_money:
        raise ConfigError("mode live trades real money: say --yes-real-money if that is meant")
    need_keys(settings)
    limits_of_live(settings)


def _log_to_file(path: Path, whose: Mapping[str, str]) -> None:
    try:
        log_to_file(path, whose)
    except OSError as error:
        raise ConfigError(f"log.file: {path} cannot be written: {error.strerror}; name another file") from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _compare_line(settings: Settings) -> str:
    if settings.compare_on == "message":
        return "every kline update counts, about thirty a candle; closed would count finished candles only"
    return "only finished candles count, one an interval; message would count every update, about thirty a candle"


def _show_until(system: BotSystem, stop: threading.Event, on_terminal: bool, until_flat: bool) -> None:
    ended = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            if system.failed.is_set() or (until_flat and system.is_flat):
                break
        ended.set()

    threading.Thread(target=watch, name="until", daemon=True).start()
    if on_terminal:
        with LiveView() as view:
            view.run(system.snapshot, ended)
        return
    log = structlog.get_logger()
    while not ended.wait(HEARTBEAT_S):
        log.info("state", **_state(system.snapshot()))


def _state(snapshot: Snapshot) -> dict[str, object]:
    return {
        "equity": plain(snapshot.equity),
        "cash": plain(snapshot.cash),
        "trades": snapshot.trade_count,
        "decisions": snapshot.decisions,
        "skipped": dict(snapshot.skipped),
        "klines": sum(view.messages for view in snapshot.symbols),
        "prices": {v.symbol: None if v.price is None else plain(v.price) for v in snapshot.symbols},
        "positions": {view.symbol: plain(view.position.quantity) for view in snapshot.symbols},
    }


def _stop_after(stop: threading.Event, seconds: float) -> None:
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
