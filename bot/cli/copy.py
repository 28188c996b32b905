"""`copy`: klines and trades from one store to the other."""

import argparse
import sys

from bot.app.copying import copy_history
from bot.cli.history import bar
from bot.cli.invocation import typed
from bot.config import load_settings
from bot.ports import StoreBusy


def copy(arguments: argparse.Namespace) -> int:
    """Copy, with a bar on a terminal, and print what was copied; 1 if something can never be kept there."""
    settings = load_settings({"data_dir": arguments.data_dir, "symbols": arguments.symbols}, arguments.config)
    symbols = None if arguments.symbols is None else settings.symbols
    try:
        with bar(f"{arguments.source} to {arguments.target}", None) as advance:
            report = copy_history(settings, arguments.source, arguments.target, symbols, advance)
    except StoreBusy as error:
        raise StoreBusy(f"{error}; {_goes_on(arguments)}") from None
    except KeyboardInterrupt:
        print(f"stopped; {_goes_on(arguments)}", file=sys.stderr)
        return 1
    for symbol, count in report.klines.items():
        print(f"{symbol}: {count:,} klines")
    print(
        f"{sum(report.klines.values()):,} klines and {report.trades:,} trades copied from {arguments.source} to "
        f"{arguments.target}{', going on with an earlier copy' if report.resumed else ''}"
    )
    if report.expired:
        days = settings.keep_open_klines_days
        print(f"of them {report.expired:,} open klines were left out: older than {days} days (keep_open_klines_days)")
    for line in report.refused:
        print(line, file=sys.stderr)
    return 1 if report.refused else 0


def _goes_on(arguments: argparse.Namespace) -> str:
    more = [("--symbols", arguments.symbols), ("--config", arguments.config)]
    flags = [part for flag, value in more if value is not None for part in (flag, str(value))]
    again = typed("copy", "--from", arguments.source, "--to", arguments.target, *flags, data_dir=arguments.data_dir)
    return f"the copy goes on where it was with: {again}"
