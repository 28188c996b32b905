"""`backtest`, and what it shares with `replay`: kline files in, the contract's JSON or a table out."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bot.app.trading import offline_rules, sizing_parameters, strategy_of
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
    settings, series, rules = inputs(arguments)
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
            write_plot(report, arguments.plot, settings.fee)
        except OSError as error:
            raise ConfigError(f"--plot {arguments.plot}: {error.strerror}; name a file that can be written") from None
    show(report, settings, arguments.json)
    if arguments.plot is not None and not arguments.json:
        print(f"drawn in {arguments.plot}")
    return 0


def inputs(arguments: argparse.Namespace) -> tuple[Settings, list[Series], dict[str, SymbolRules]]:
    """Return the settings, the files' klines and the rules of their symbols. Raises ConfigError, FileError."""
    settings = load_settings({flag: getattr(arguments, flag) for flag in FLAGS}, arguments.config)
    if arguments.interval is not None:
        try:
            interval_ms(arguments.interval)
        except ValueError as error:
            raise ConfigError(f"--interval: {error}") from None
    with bar("reading", None) as advance:
        series = read_series(arguments.files, arguments.interval, advance)
    return settings, series, offline_rules([s.symbol for s in series], arguments.filters)


def show(report: RunReport, settings: Settings, as_json: bool) -> None:
    """Print a report as the contract's object or as a table; what goes to standard error is for people."""
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
def bar(what: str, total: int | None) -> Iterator[Callable[..., None]]:
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
