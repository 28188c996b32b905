"""`replay`: kline files through the real actors."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path

from bot.app.data_directory import DataDirectory
from bot.app.replay import ReplayPlan, run_replay
from bot.app.trading import run_of, sizing_parameters, strategy_of
from bot.cli.history import bar, inputs, show
from bot.cli.logs import log_to_error
from bot.cli.signals import stopped_by_signals
from bot.config import ConfigError, Mode
from bot.supervision import SystemClock


def replay(arguments: argparse.Namespace) -> int:
    """Inject the files' klines into the real actors; 0 when all were taken or a signal ended it in order."""
    speed = _speed(arguments.speed)
    settings, series, rules = inputs(arguments)
    log_to_error()
    # Every kline is handed from thread to thread and waited for.
    sys.setswitchinterval(0.0005)
    plan = ReplayPlan(
        series=series,
        rules=rules,
        strategy=strategy_of(settings),
        sizing=sizing_parameters(settings),
        cash=settings.cash,
        bot_id=settings.bot_id,
        speed=speed,
        run=run_of(settings.model_copy(update={"mode": Mode.REPLAY}), SystemClock().now_ms()),
    )
    with _directory(arguments.data_dir) as directory, stopped_by_signals() as stop:
        total = sum(len(s.rows) for s in series)
        with bar("replaying", total) as advance:
            report = run_replay(plan, directory, advance, stop)
        stopped = stop.is_set()
    show(report, settings, arguments.json)
    if stopped:
        print(f"stopped after {report.bars} of {total} klines", file=sys.stderr)
    return 0


def _speed(text: str) -> Decimal | None:
    if text == "max":
        return None
    try:
        speed = Decimal(text)
    except InvalidOperation:
        speed = Decimal(0)
    if not speed.is_finite() or speed <= 0:
        raise ConfigError(f"--speed {text}: give max or a number above 0, such as 60")
    return speed


@contextmanager
def _directory(path: Path | None) -> Iterator[DataDirectory]:
    if path is not None:
        yield DataDirectory(path)
        return
    with tempfile.TemporaryDirectory(prefix="bulkhead-replay-") as temporary:
        yield DataDirectory(Path(temporary))
