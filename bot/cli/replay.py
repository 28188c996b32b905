"""`replay`: kline files through the real actors; or a store rebuilt from a broker's topics."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path

from bot.app.data_directory import DataDirectory, DataDirectoryError
from bot.app.rebuild import RebuildReport, rebuild
from bot.app.replay import ReplayPlan, run_replay
from bot.app.trading import run_of, sizing_parameters, strategy_of
from bot.cli.history import bar, inputs, show
from bot.cli.logs import log_to_error
from bot.cli.signals import stopped_by_signals
from bot.cli.why import moment_ms
from bot.config import ConfigError, Mode, load_settings
from bot.supervision import SystemClock


def replay(arguments: argparse.Namespace) -> int:
    """Inject the files' klines into the real actors; 0 when all were taken or a signal ended it in order.

    With --from-kafka rebuild the store from the topics; 1 where it is not equal to what --equal-to names.
    """
    if arguments.from_kafka:
        return _rebuild(arguments)
    for flag in ("since", "equal_to", "config"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(f"--{flag.replace('_', '-')} belongs to --from-kafka; give that too, or leave it out")
    if not arguments.files:
        raise ConfigError("no FILE to replay; name kline files, or --from-kafka for a broker's topics")
    speed = _speed(arguments.speed)
    settings, series, rules = inputs(arguments)
    log_to_error({"mode": Mode.REPLAY.value, "bot_id": settings.bot_id})
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


def _rebuild(arguments: argparse.Namespace) -> int:
    if arguments.files:
        raise ConfigError(f"{arguments.files[0]}: --from-kafka reads topics and takes no FILE; leave one of them out")
    since_ms = None
    if arguments.since is not None:
        since_ms = moment_ms(arguments.since, SystemClock().now_ms(), is_from=True)
    settings = load_settings(config_file=arguments.config)
    original = DataDirectory(arguments.equal_to) if arguments.equal_to is not None else None
    if original is not None and original.identity() is None:
        raise DataDirectoryError(f"--equal-to {original.path} holds no book; name the --data-dir of a run")
    with _directory(arguments.data_dir) as directory, bar("reading", None) as advance:
        report = rebuild(settings, directory, since_ms, original, advance)
    if arguments.json:
        print(json.dumps(report.as_json()))
    else:
        for line in _rebuilt_lines(report):
            print(line)
    return 1 if report.difference is not None else 0


def _rebuilt_lines(report: RebuildReport) -> Iterator[str]:
    counts = f"{report.klines:,} klines, {report.trades:,} trades, {report.events:,} events"
    yield f"rebuilt the {report.mode} book: {counts}; {report.duplicates:,} came more than once"
    for what, digest in report.digests.items():
        yield f"SHA-256 of {what}: {digest}"
    yield f"cash {report.wallet['cash']}, equity {report.wallet['equity']}"
    if report.difference is not None:
        yield f"NOT equal to {report.original}: {report.difference}"
    elif report.original is not None:
        yield f"equal to {report.original}"


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
