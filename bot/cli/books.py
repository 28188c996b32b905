"""`klines`, `trades`, `wallet`, `status`, `actors`: what is stored, owned and running; needs no keys, no network.

Klines and trades are read from DynamoDB where that is the store.

`halt` and `resume` too: they act on the directory alone, whether a bot runs there or not.
"""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from rich.console import Console

from bot.adapters.sqlite import SqliteStore
from bot.app.control import ControlError, ask
from bot.app.data_directory import DataDirectory, DataDirectoryError
from bot.app.snapshot import stored_snapshot
from bot.cli.invocation import typed
from bot.cli.tables import (
    LAST,
    dead_letters_table,
    klines_table,
    reconcile_table,
    status_table,
    trades_table,
    wallet_table,
)
from bot.config import ConfigError, Mode, load_settings
from bot.domain.kline import Kline, kline_key
from bot.domain.money import plain
from bot.research.report import trade_json

if TYPE_CHECKING:
    from bot.adapters.dynamodb import DynamoHistory

T = TypeVar("T")
RECONCILE_WITHIN_S = 30.0
"""The running bot asks the exchange, about every symbol."""


def klines(arguments: argparse.Namespace) -> int:
    """Print the stored klines, oldest first."""
    with _history(arguments) as store:
        # What is far away is not read through for a table of its end.
        limit = None if isinstance(store, SqliteStore) or arguments.json else LAST
        found = _of_known(store, arguments.symbol, store.klines(symbol=arguments.symbol, limit=limit))
        if arguments.json:
            _print_array(_kline_json(kline) for kline in found)
        else:
            Console().print(klines_table(found))
    return 0


def trades(arguments: argparse.Namespace) -> int:
    """Print the stored trades, oldest first."""
    with _history(arguments) as store:
        found = _of_known(store, arguments.symbol, store.trades(symbol=arguments.symbol))
        if arguments.json:
            _print_array(
                {**trade_json(t), "order_id": t.order_id, "client_order_id": t.client_order_id, "reason": t.reason}
                for t in found
            )
        else:
            Console().print(trades_table(found), soft_wrap=True)
    return 0


def _of_known(store: "SqliteStore | DynamoHistory", symbol: str | None, items: Iterator[T]) -> Iterator[T]:
    """Return what was found of a symbol; where that is nothing, it must be one that the store has."""
    first = next(items, None)
    if first is not None:
        return chain((first,), items)
    if symbol is not None and symbol not in (known := store.symbols()):
        raise ConfigError(f"nothing of {symbol} is stored; symbols stored: {', '.join(known) or 'none yet'}")
    return iter(())


@contextmanager
def _history(arguments: argparse.Namespace) -> "Iterator[SqliteStore | DynamoHistory]":
    """Open what the settings name as the store: the directory's history.db, or the tables, which need no directory."""
    settings = load_settings({"data_dir": arguments.data_dir}, arguments.config)
    if settings.store == "dynamodb":
        from bot.app.dynamodb import open_history, whose_else

        with open_history(settings) as history:
            if line := whose_else(settings, DataDirectory(settings.directory), history):
                print(line, file=sys.stderr)
            yield history
    else:
        with SqliteStore.read_only(_held(DataDirectory(settings.directory)).history) as store:
            yield store


def wallet(arguments: argparse.Namespace) -> int:
    """Print cash, positions and equity."""
    snapshot = stored_snapshot(directory_of(arguments))
    if arguments.json:
        print(json.dumps(snapshot.wallet_json()))
    else:
        Console().print(wallet_table(snapshot))
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Print what runs and what it owns; with --healthy return 1 unless a bot runs whose feeds are fresh."""
    directory = directory_of(arguments, must_exist=False)
    if arguments.data_dir is not None and not directory.path.is_dir():
        raise DataDirectoryError(f"there is no directory {directory.path}; name the --data-dir of a run")
    state = _status(directory)
    trouble = state.get("trouble", "no bot is running here")
    if arguments.json:
        print(json.dumps(state))
    elif arguments.healthy:
        print(trouble or "healthy")
    else:
        Console().print(status_table(state))
    return 1 if arguments.healthy and trouble else 0


def actors(arguments: argparse.Namespace) -> int:
    """List the actors of a running bot, kill one (only with run --allow-chaos), or release one from quarantine."""
    directory = _running(arguments)
    if arguments.action != "list":
        if arguments.name is None:
            raise ConfigError(f"actors {arguments.action} needs a NAME; see: actors list")
        request = {"command": arguments.action, "name": arguments.name, "how": arguments.how}
        answer = ask(directory.control_socket, request)
        print(json.dumps(answer) if arguments.json else answer["done"])
        return 0
    listed = ask(directory.control_socket, {"command": "status"})
    if arguments.json:
        print(json.dumps(listed["actors"]))
    else:
        Console().print(status_table(listed))
    return 0


def dead_letters(arguments: argparse.Namespace) -> int:
    """List the messages that were given up after killing their handlers; tell one again, or drop it."""
    directory = _running(arguments)
    if arguments.action != "list" and arguments.number is None:
        raise ConfigError(f"dead-letters {arguments.action} needs a NUMBER; see: dead-letters list")
    request = {"command": "dead-letters", "action": arguments.action, "number": arguments.number}
    answer = ask(directory.control_socket, request)
    if arguments.action != "list":
        print(json.dumps(answer) if arguments.json else answer["done"])
    elif arguments.json:
        print(json.dumps(answer["dead_letters"]))
    else:
        Console().print(dead_letters_table(answer["dead_letters"]))
    return 0


def halt(arguments: argparse.Namespace) -> int:
    """Let no order leave from now on, over restarts, until `resume`; with --flatten but those that sell all."""
    directory = directory_of(arguments, must_exist=False)
    # Who halts without naming a directory means the bot that runs, wherever it was told to.
    others = [] if arguments.data_dir is not None else _running_beside(directory)
    words = ("halt", "--flatten") if arguments.flatten else ("halt",)
    meant = [f"a bot runs on {other}; halt that with: {typed(*words, data_dir=other)}" for other in others]
    pid = directory.running_pid()
    if pid is None and not _has_book(directory):
        if meant:
            raise DataDirectoryError(f"nothing is halted, {directory.path} holds no book; {', '.join(meant)}")
        _held(directory)
    bot_here = "no bot runs there now" if pid is None else f"the bot there, process {pid}, goes on without orders"
    before = directory.halted()
    if before is None:
        try:
            directory.halt(f"by {_user()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
        except OSError as error:
            raise ControlError(f"{directory.path} is not halted: {error.strerror}; stop the bot instead") from None
        print(f"halted: no order leaves {directory.path} from now on, over restarts too ({bot_here})")
    else:
        print(f"{directory.path} was halted already, {before} ({bot_here})")
    if arguments.flatten and pid is not None:
        print(ask(directory.control_socket, {"command": "flatten"})["done"])
    elif arguments.flatten:
        print("no bot runs there, so nothing was sold; this starts one that sells all of the bot's coins and stops:")
        print(f"  {_sell_all_command(directory)}")
    print(f"let orders leave again with: {typed('resume', data_dir=directory.path)}")
    for line in meant:
        print(f"NOT halted: {line}")
    return 0


def _has_book(directory: DataDirectory) -> bool:
    """Whether a directory holds a book, if only one that does not tell whose it is: that is no matter of a halt."""
    try:
        return directory.identity() is not None
    except DataDirectoryError:
        return directory.path.is_dir()


def _running_beside(directory: DataDirectory) -> list[Path]:
    """Return the directories beside this one in which a bot runs."""
    beside = (lock.parent for lock in sorted(directory.path.parent.glob("*/lock")))
    return [one for one in beside if one != directory.path and DataDirectory(one).running_pid() is not None]


def reconcile(arguments: argparse.Namespace) -> int:
    """Print the bot's book beside the exchange's; with --accept book the difference and free the symbol."""
    directory = directory_of(arguments)
    identity = directory.identity()
    symbol, accept = arguments.symbol, arguments.accept
    stopped = directory.stopped_symbols()
    if symbol is not None and symbol not in (known := {**_status(directory)["symbols"], **stopped}):
        has = ", ".join(sorted(filter(None, known))) or "no symbol yet"
        raise DataDirectoryError(f"{directory.path} holds no book of {symbol}; it has {has}")
    if directory.running_pid() is not None:
        request = {"command": "reconcile", "symbol": symbol, "accept": accept}
        found = ask(directory.control_socket, request, RECONCILE_WITHIN_S)
    else:
        from bot.app.reconciling import compare_by_hand

        flags = {"mode": identity.mode if identity else None, "data_dir": directory.path}
        found = compare_by_hand(load_settings(flags, arguments.config), directory, symbol, accept).as_json()
    # A running bot frees them a moment later, once all who keep books have taken what was accepted.
    stopped = {one: reason for one, reason in directory.stopped_symbols().items() if one not in found["freed"]}
    if symbol is not None:
        found["assets"] = [row for row in found["assets"] if row["symbol"] == symbol]
        stopped = {one: reason for one, reason in stopped.items() if one == symbol}
    if arguments.json:
        print(json.dumps({**found, "stopped": stopped}))
    else:
        Console().print(reconcile_table(found, stopped, directory.path))
    return 0


def _sell_all_command(directory: DataDirectory) -> str:
    identity = directory.identity()
    mode = "demo" if identity is None else identity.mode
    real = ("--yes-real-money",) if mode == Mode.LIVE.value else ()
    return typed("run", "--flatten", "--mode", mode, *real, data_dir=directory.path)


def resume(arguments: argparse.Namespace) -> int:
    """Let orders leave again; 0 also if they were not halted."""
    directory = directory_of(arguments, must_exist=False)
    before = directory.halted()
    try:
        was_halted = directory.resume()
    except OSError as error:
        raise ControlError(f"{directory.path} is still halted: {error.strerror}; mend that and resume again") from None
    if was_halted:
        print(f"resumed: orders leave {directory.path} again (it was halted {before})")
    else:
        print(f"{directory_of(arguments).path} was not halted")
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _running(arguments: argparse.Namespace) -> DataDirectory:
    directory = directory_of(arguments)
    if directory.running_pid() is None:
        raise ControlError(f"no bot runs on {directory.path}; start one with: run --data-dir {directory.path}")
    return directory


def _status(directory: DataDirectory) -> dict[str, Any]:
    if directory.running_pid() is not None:
        try:
            return ask(directory.control_socket, {"command": "status"})
        except ControlError:
            # It may be starting or stopping: what is stored is true all the same.
            pass
    return stored_snapshot(directory).as_json()


def directory_of(arguments: argparse.Namespace, must_exist: bool = True) -> DataDirectory:
    """Return the directory that was named, else the configured one. Raises DataDirectoryError without a book in it."""
    directory = DataDirectory(arguments.data_dir or load_settings().directory)
    return _held(directory) if must_exist else directory


def _held(directory: DataDirectory) -> DataDirectory:
    if directory.identity() is None:
        raise DataDirectoryError(
            f"{directory.path} holds no book; name the --data-dir of a run, or start one with: run"
        )
    return directory


def _print_array(items: Iterable[dict[str, Any]]) -> None:
    """Print a JSON array item by item, so that a long history needs no memory."""
    sys.stdout.write("[")
    for number, item in enumerate(items):
        sys.stdout.write(("," if number else "") + json.dumps(item))
    sys.stdout.write("]\n")


def _kline_json(kline: Kline) -> dict[str, Any]:
    item: dict[str, Any] = {"symbol": kline.symbol, "kline_key": kline_key(kline)}
    for name, value in msgspec.structs.asdict(kline).items():
        item[name] = value if value is None or isinstance(value, int | str) else plain(value)
    return item
