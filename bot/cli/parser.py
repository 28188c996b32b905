"""The command line: which commands and flags there are, and which exit status an outcome has. Source: contract, 2."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

USAGE = 2
"""Bad usage, configuration or input file."""
FAILED = 1
"""Any other failure."""
MODE = "demo: simulated exchange, paper: real prices and paper money, testnet, live (demo)"
CONFIG = "settings; the environment (BOT_...) comes after them, flags last"
JSON = "print JSON, nothing else"
LINE_CHARS = 1_500
"""What a refusal in one line may take."""


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print the help; argparse's own would not say that nobody could take it."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage text that argparse would put before it."""
        _say(f"{self.prog}: {message}; see {self.prog} --help")
        raise SystemExit(USAGE)


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit status: 0 done, 2 bad usage or input, 1 any other failure."""
    try:
        try:
            return _run(list(argv))
        finally:
            # Now, where it can still be said that it failed, not while the interpreter goes away.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing more is wanted.
        _discard_output()
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            raise
        _discard_output()
        _say(f"standard output cannot be written: {error.strerror}; free space, or send it elsewhere")
        return FAILED


_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Of an OSError without a file name: what writing to a standard stream fails with."""


def _discard_output() -> None:
    """What is still held back goes nowhere: exit must not try to write it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    line = " ".join(text.split())
    if len(line) > LINE_CHARS:  # it holds what was given
        line = f"{line[: LINE_CHARS // 2]} ... {line[-LINE_CHARS // 3 :]}"
    with suppress(OSError):
        print(line, file=sys.stderr)


def _run(arguments: list[str]) -> int:
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "run")
    parsed = _parser().parse_args(arguments)
    try:
        # Imported only now: a backtest need not wait for what an exchange or a live view takes.
        module, function = parsed.command
        return int(getattr(import_module(f"bot.cli.{module}"), function)(parsed))
    except KeyboardInterrupt:
        return FAILED
    except Exception as error:
        status = _status_of(error)
        if status is None:
            raise
        _say(str(error))
        return status


# By name: importing them all would take a second, to say one line.
STATUSES = {
    **dict.fromkeys(
        (
            "bot.config.ConfigError",
            "bot.research.files.FileError",
            "bot.app.data_directory.DataDirectoryError",
            "bot.ports.ConfigurationRefused",
            # The simulated exchange complains before it serves, so of what it was given: symbols, files, port.
            "bot.simulator.errors.SimulatorError",
            "bot.app.why.WhyError",
        ),
        USAGE,
    ),
    **dict.fromkeys(
        (
            "bot.app.reaching.StartError",
            "bot.app.replay.ReplayError",
            "bot.app.rebuild.RebuildError",
            "bot.ports.StoreError",
            "bot.app.control.ControlError",
            "bot.ports.ExchangeError",
            "bot.ports.KeysUnavailable",
        ),
        FAILED,
    ),
}
"""The exit status of errors whose text is one line for the user; of the classes of an error the nearest counts."""


def _status_of(error: Exception) -> int | None:
    """Return the exit status of an error for the user, None for a defect of ours."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((STATUSES[name] for name in names if name in STATUSES), None)


def duration_s(text: str) -> float:
    """Return the seconds that `90`, `30s`, `500ms`, `5m`, `2h` or `1d` mean. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30s, 5m or 1h")
    return int(match[1]) * {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def directory(text: str) -> Path:
    """Return the path that `text` names. Raises ArgumentTypeError: an empty one would be the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} names no directory; give one such as data/demo")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bulkhead",
        description="A crypto trading bot built of actors that fail in isolation. Without a command: run.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    one = _command(commands, "run", "run the bot; without keys on an embedded simulated exchange", ("start", "run"))
    one.add_argument("--mode", choices=["demo", "paper", "testnet", "live"], help=MODE)
    one.add_argument("--symbols", metavar="A,B", help="what is traded, all in one quote asset")
    one.add_argument("--interval", metavar="1m", help="of the candles (1m)")
    one.add_argument("--config", type=Path, metavar="bot.toml", help=CONFIG)
    _data_dir(one)
    one.add_argument("--for", type=duration_s, dest="seconds", metavar="30s", help="stop by itself after this time")
    one.add_argument("--allow-chaos", action="store_true", help="let `actors kill` kill actors of this bot")
    one.add_argument("--yes-real-money", action="store_true", help="needed by mode live")
    one.add_argument("--flatten", action="store_true", help="sell all of the bot's coins, and stop; leaves it halted")

    for name, text, command in (
        ("backtest", "the trading rule over kline files, without actors, at full speed", ("history", "backtest")),
        ("replay", "kline files through the real actors", ("replay", "replay")),
    ):
        one = _command(commands, name, text, command)
        # A replay has files, or the broker's topics.
        count = "+" if name == "backtest" else "*"
        one.add_argument("files", nargs=count, type=Path, metavar="FILE", help=".csv, .csv.gz, .zip or .parquet")
        for flag, meaning in (
            ("--interval", "of files whose name does not tell it, e.g. 1m"),
            ("--cash", "paper cash to begin with (10000)"),
            ("--fee", "commission as a fraction (0.001)"),
            ("--fraction", "of equity that a BUY spends (0.1)"),
            ("--sell-fraction", "of the position that a SELL sells (1)"),
            ("--buy-drop", "drop against the previous message that buys (0.01)"),
            ("--sell-rise", "rise against the previous message that sells (0.01)"),
            ("--max-exposure", "most of equity that one symbol's position may be (1)"),
            ("--slippage", "fraction that fills are moved against the trader (0)"),
            ("--stop-loss", "loss on the average price that sells all, a fraction (off)"),
            ("--take-profit", "gain on the average price that sells all, a fraction (off)"),
            ("--cooldown", "seconds without a BUY after a trade (0)"),
        ):
            one.add_argument(flag, metavar="X", help=meaning)
        one.add_argument(
            "--compare-on", choices=["message", "closed"], help="what counts: every kline, or closed ones (message)"
        )
        one.add_argument("--filters", type=Path, metavar="FILE", help="Binance's exchangeInfo JSON")
        one.add_argument("--json", action="store_true", help=JSON)
        one.add_argument("--config", type=Path, metavar="bot.toml", help=CONFIG)
        if name == "backtest":
            one.add_argument("--plot", type=Path, metavar="out.html", help="draw the equity curve")
        else:
            _data_dir(one, "where its book is kept; else nowhere")
            one.add_argument("--speed", default="max", metavar="max|N", help="N times as fast as it happened")
            one.add_argument("--from-kafka", action="store_true", help="rebuild the store from the broker's topics")
            one.add_argument("--since", metavar="T", help="with --from-kafka: klines from this time on, in UTC")
            one.add_argument(
                "--equal-to", type=directory, metavar="DIR", help="with --from-kafka: compare with this one"
            )

    one = _command(
        commands, "simulator", "the simulated Binance exchange as a server of its own", ("simulator", "serve")
    )
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=int, default=0, help="0 takes a free one")
    one.add_argument("--profile", choices=["com", "us"], default="com", help="which exchange it is like (com)")
    one.add_argument("--symbols", metavar="A,B", help="what it trades")
    one.add_argument("--files", nargs="+", type=Path, default=[], metavar="FILE", help="klines to play")
    one.add_argument("--speed", default="1", metavar="N", help="how fast the market's time runs (1)")
    one.add_argument("--seed", type=int, metavar="N", help="of its prices; else a random one")
    one.add_argument("--interval-ms", type=int, metavar="N", help="time between kline updates of a symbol")
    one.add_argument("--step", action="store_true", help="a kline at each POST /sim/next")
    one.add_argument("--exchange-info", type=Path, metavar="FILE", help="a recorded exchangeInfo whose filters hold")
    one.add_argument("--connection-life-ms", type=int, metavar="N", help="websockets are cut after this, not 24 h")
    one.add_argument("--ping-every-ms", type=int, metavar="N", help="time between pings, not 20 s")
    one.add_argument("--pong-within-ms", type=int, metavar="N", help="time for the pong, not 60 s")
    _data_dir(one, "where its books are kept; else nowhere")
    one.add_argument("--json", action="store_true", help=JSON)

    one = _command(commands, "actors", "list, kill or release the actors of a running bot", ("books", "actors"))
    one.add_argument("action", nargs="?", choices=["list", "kill", "release"], default="list", help="what to do (list)")
    one.add_argument("name", nargs="?", metavar="NAME", help="such as feed/BTCUSDT")
    one.add_argument("--how", choices=["raise", "exit", "hang", "vanish"], default="raise", help="it dies (raise)")
    _data_dir(one)
    one.add_argument("--json", action="store_true", help=JSON)

    one = _command(commands, "dead-letters", "messages given up after killing their actor", ("books", "dead_letters"))
    one.add_argument("action", nargs="?", choices=["list", "retry", "drop"], default="list", help="what to do (list)")
    one.add_argument("number", nargs="?", type=int, metavar="NUMBER", help="of a letter, as listed")
    _data_dir(one)
    one.add_argument("--json", action="store_true", help=JSON)

    for name, text, command in (
        ("klines", "the klines stored", ("books", "klines")),
        ("trades", "the trades stored", ("books", "trades")),
        ("wallet", "cash, positions and equity", ("books", "wallet")),
        ("status", "what is running and what it owns", ("books", "status")),
    ):
        one = _command(commands, name, text, command)
        _data_dir(one)
        one.add_argument("--json", action="store_true", help=JSON)
        if name in ("klines", "trades"):
            one.add_argument("--symbol", metavar="A", help="only this one")
            one.add_argument("--config", type=Path, metavar="bot.toml", help="says whether they are in DynamoDB")
        if name == "status":
            one.add_argument("--healthy", action="store_true", help="exit 1 unless a bot runs and its feeds are fresh")

    one = _command(
        commands, "copy", "klines and trades from one store to the other; goes on where it was", ("copy", "copy")
    )
    for flag, whither, text in (("--from", "source", "where they are"), ("--to", "target", "where they are to be too")):
        one.add_argument(flag, dest=whither, choices=["sqlite", "dynamodb"], required=True, help=text)
    one.add_argument("--symbols", metavar="A,B", help="only these")
    one.add_argument("--config", type=Path, metavar="bot.toml", help=CONFIG)
    _data_dir(one)

    one = _command(commands, "why", "what was decided at a moment or for an order, and why", ("why", "why"))
    one.add_argument("what", metavar="SYMBOL TIME | CLIENT_ORDER_ID", help="such as BTCUSDT 07:44:38, or an order's id")
    one.add_argument("time", nargs="?", metavar="", help="now, 07:44:38 (today), 2026-11-28T07:44:38, or ms; in UTC")
    _data_dir(one)
    one.add_argument("--json", action="store_true", help=JSON)

    for name, text in (
        ("halt", "let no order leave, over restarts too, until `resume`; the bot need not run"),
        ("resume", "let orders leave again after `halt`"),
    ):
        one = _command(commands, name, text, ("books", name))
        _data_dir(one)
        if name == "halt":
            one.add_argument("--flatten", action="store_true", help="and have the bot sell all that it bought")

    one = _command(
        commands,
        "reconcile",
        "the bot's book beside the exchange's; --accept books a difference",
        ("books", "reconcile"),
    )
    one.add_argument("symbol", nargs="?", metavar="SYMBOL", help="only this one")
    one.add_argument("--accept", action="store_true", help="book the difference as it is, and free what it stopped")
    one.add_argument("--config", type=Path, metavar="bot.toml", help=CONFIG)
    _data_dir(one)
    one.add_argument("--json", action="store_true", help=JSON)

    one = _command(commands, "check", "validate configuration, keys, symbols, clock and directory", ("check", "check"))
    one.add_argument("--mode", choices=["demo", "paper", "testnet", "live"], help=MODE)
    one.add_argument("--config", type=Path, metavar="bot.toml", help=CONFIG)
    one.add_argument("--create", action="store_true", help="make the tables of DynamoDB that are absent")
    _data_dir(one)
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    text: str,
    command: tuple[str, str],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def _data_dir(parser: argparse.ArgumentParser, meaning: str = "default: data/MODE") -> None:
    parser.add_argument("--data-dir", type=directory, metavar="DIR", help=meaning)
