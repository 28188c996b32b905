"""`backtest` and `replay`: kline files in, the contract's JSON or a table out."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bot.app.data_directory import DataDirectory
from bot.app.replay import ReplayPlan, run_replay
from bot.app.trading import offline_rules, sizing_parameters, strategy_of
from bot.cli.logs import log_to_error
from bot.cli.run import stopped_by_signals
from bot.cli.tables import report_table
from bot.config import ConfigError, Settings, load_settings
from bot.domain.filters import SymbolRules
from bot.research.backtest import run_backtest
from bot.research.files import Series, interval_ms, read_series
from bot.research.plot import write_plot
from bot.research.report import RunReport

FLAGS = (
    "cash",
    "fee",
    "fraction",
    "sell_fraction",
    "buy_drop",
    "sell_rise",
    "max_exposure",
    "slippage",
    "stop_loss",
    "take_profit",
    "cooldown",
    "compare_on",
)
CURVE_POINTS = 2_000


def backtest(arguments: argparse.Namespace) -> int:
    """Run the rule over the files at full speed."""
    settings, series, rules = _inputs(arguments)
    report = run_backtest(
        series,
        rules,
        strategy_of(settings),
        sizing_parameters(settings),
        settings.cash,
        curve_points=CURVE_POINTS if arguments.plot is not None else 0,
    )
    if arguments.plot is not None:
        try:
            write_plot(report, arguments.plot)
        except OSError as error:
            raise ConfigError(f"--plot {arguments.plot}: {error.strerror}; name a file that can be written") from None
    _show(report, settings, arguments.json)
    if arguments.plot is not None and not arguments.json:
        print(f"drawn in {arguments.plot}")
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Inject the files' klines into the real actors; 0 when all were taken or a signal ended it in order."""
    speed = _speed(arguments.speed)
    settings, series, rules = _inputs(arguments)
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
    )
    with _directory(arguments.data_dir) as directory, stopped_by_signals() as stop:
        total = sum(len(s.rows) for s in series)
        with _bar("replaying", total) as advance:
            report = run_replay(plan, directory, advance, stop)
        stopped = stop.is_set()
    _show(report, settings, arguments.json)
    if stopped:
        print(f"stopped after {report.bars} of {total} klines", file=sys.stderr)
    return 0


def _inputs(arguments: argparse.Namespace) -> tuple[Settings, list[Series], dict[str, SymbolRules]]:
    settings = load_settings({flag: getattr(arguments, flag) for flag in FLAGS})
    if arguments.interval is not None:
        try:
            interval_ms(arguments.interval)
        except ValueError as error:
            raise ConfigError(f"--interval: {error}") from None
    with _bar("reading", None) as advance:
        series = read_series(arguments.files, arguments.interval, advance)
    return settings, series, offline_rules([s.symbol for s in series], arguments.filters)


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


def _show(report: RunReport, settings: Settings, as_json: bool) -> None:
    other = "closed" if settings.compare_on == "message" else "message"
    print(
        f"compare_on = {settings.compare_on}: each row is one finished candle, so {other} gives the same here; "
        "a live feed sends about thirty messages a candle",
        file=sys.stderr,
    )
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        Console().print(report_table(report, settings.fee))


@contextmanager
def _directory(path: Path | None) -> Iterator[DataDirectory]:
    if path is not None:
        yield DataDirectory(path)
        return
    with tempfile.TemporaryDirectory(prefix="bulkhead-replay-") as temporary:
        yield DataDirectory(Path(temporary))


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Yield a function of (done[, total]) that moves a bar on standard error, shown on a terminal only."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, of=total: progress.update(task, completed=done, total=of)
