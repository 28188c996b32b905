"""`check`: configuration, directory, broker, tables, keys, symbols and clock, each a line: ok, or the fix."""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bot.app.account import admit, limits_of_live
from bot.app.data_directory import DataDirectory, DataDirectoryError
from bot.app.keys import find_keys
from bot.app.metering import listen, try_cloudwatch
from bot.app.places import WITH_ACCOUNT, reach
from bot.app.trading import one_quote_asset, strategy_of
from bot.cli.invocation import typed
from bot.cli.start import refuse_replay
from bot.config import ConfigError, Mode, Settings, load_settings
from bot.domain.money import plain
from bot.ports import ConfigurationRefused, ExchangeError, KeysUnavailable, PointsNotTaken, StoreError
from bot.supervision import SystemClock

_FAILURES = (ConfigError, DataDirectoryError, ExchangeError, KeysUnavailable, PointsNotTaken, StoreError, OSError)
MIN_FREE_MB = 500
MAX_CLOCK_OFFSET_MS = 1_000
BROKER_TIMEOUT_S = 5.0


def check(arguments: argparse.Namespace) -> int:
    """Print a line a subject; 0 if all are ok, 1 if one is not."""
    settings = load_settings({"mode": arguments.mode, "data_dir": arguments.data_dir}, arguments.config)
    refuse_replay(settings)
    if arguments.create and settings.store != "dynamodb":
        raise ConfigError(f'--create makes tables of DynamoDB, and store is {settings.store}: set store = "dynamodb"')
    all_ok = True

    def say(subject: str, question: Callable[[], str]) -> bool:
        nonlocal all_ok
        try:
            print(f"ok    {subject}: {question()}")
            return True
        except _FAILURES as error:
            all_ok = False
            print(f"wrong {subject}: {' '.join(str(error).split())}")
            return False

    say("configuration", lambda: f"mode {settings.mode.value}, {', '.join(settings.symbols)}, {settings.interval}")
    say("strategy", lambda: type(strategy_of(settings)).__name__)
    say("data directory", lambda: _directory_line(DataDirectory(settings.directory)))
    halted = DataDirectory(settings.directory).halted() if settings.directory.is_dir() else None
    if halted is not None:
        say("halt", lambda: _refuse_halted(halted, settings.directory))
    stopped = DataDirectory(settings.directory).stopped_symbols()
    for symbol, reason in stopped.items():
        say(symbol or "entries", partial(_refuse_stopped, symbol, reason, settings.directory))
    if settings.kafka.bootstrap_servers:
        _kafka(settings, DataDirectory(settings.directory), say)
    if settings.cloudwatch.namespace:
        say("cloudwatch", partial(try_cloudwatch, settings, SystemClock().now_ms()))
    if settings.metrics.port:
        say("metrics", lambda: _metrics_line(settings))
    if settings.store == "dynamodb":
        from bot.app.dynamodb import examine

        examine(settings, DataDirectory(settings.directory), arguments.create, say)
    if settings.mode is Mode.DEMO:
        say("exchange", lambda: "embedded, simulated; keys are made by it and the money is paper")
        return 0 if all_ok else 1
    try:
        market, open_account = reach(settings)
    except (ConfigError, ConfigurationRefused) as error:
        print(f"wrong addresses: {error}")
        return 1
    say("clock", lambda: _clock_line(market.now_ms() - SystemClock().now_ms()))
    say("symbols", lambda: f"all listed, quoted in {one_quote_asset(market.rules(settings.symbols))}")
    if settings.mode in WITH_ACCOUNT:
        accounts = []

        def accepted() -> str:
            keys = find_keys(settings)
            account = open_account(keys)
            asset = one_quote_asset(market.rules(settings.symbols))
            free = plain(account.free_balance(asset))
            accounts.append(account)
            return f"{keys.source}, accepted, {free} {asset} free"

        say("keys", accepted)
        for account in accounts:
            say("permissions", partial(admit, account, settings.mode))
    if settings.mode is Mode.LIVE:
        say("limits", lambda: limits_of_live(settings))
    return 0 if all_ok else 1


def _kafka(settings: Settings, directory: DataDirectory, say: Callable[[str, Callable[[], str]], bool]) -> None:
    """Say whether the broker answers, only then of each topic whether it can be used, and if all can whose they are."""
    from bot.adapters.kafka.admin import Topics
    from bot.app.publishing import examine_book

    topics: list[Topics] = []

    def answers() -> str:
        topics.append(Topics(settings.kafka, settings.aws.region, timeout_s=BROKER_TIMEOUT_S))
        return topics[0].brokers()

    if say("kafka", answers):
        told = [say(f"topic {name}", partial(topics[0].examine, name)) for name in topics[0].wanted]
        if all(told):
            say("topics' book", partial(examine_book, settings, directory, topics[0], BROKER_TIMEOUT_S))


def _metrics_line(settings: Settings) -> str:
    address = f"http://{settings.metrics.host}:{settings.metrics.port}/metrics"
    directory = settings.directory
    if directory.is_dir() and DataDirectory(directory).running_pid() is not None:
        return f"{address}, served by the running bot"
    listen(settings).close()
    return f"{address} can be served"


def _directory_line(directory: DataDirectory) -> str:
    path = directory.path
    # Where a first run would make it: the directory need not be there yet.
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        what = "is no directory" if not place.is_dir() else "cannot be written by this user"
        raise OSError(f"{path}: {place} {what}; name another --data-dir")
    free = DataDirectory(place).free_bytes() // 1_000_000
    if free < MIN_FREE_MB:
        raise OSError(f"{path}: only {free} MB free, so no entries would be made; free at least {MIN_FREE_MB} MB")
    pid, identity = directory.running_pid(), directory.identity()
    if pid is not None:
        return f"{path} is in use by process {pid}, {free} MB free"
    if identity is None:
        return f"{path} holds no book yet, {free} MB free"
    return f"{path} holds a {identity.mode} book of {identity.bot_id}, {free} MB free"


def _refuse_halted(reason: str, path: Path) -> str:
    raise ConfigError(f"halted {reason}, so no order leaves; resume with: {typed('resume', data_dir=path)}")


def _refuse_stopped(symbol: str, reason: str, path: Path) -> str:
    fix = typed("reconcile", *([symbol] if symbol else []), "--accept", data_dir=path)
    raise ConfigError(f"stopped: {reason}; accept it as it is with: {fix}")


def _clock_line(offset_ms: int) -> str:
    if abs(offset_ms) > MAX_CLOCK_OFFSET_MS:
        raise OSError(f"this machine is {offset_ms} ms off the exchange's clock; synchronise it (chrony, ntpd)")
    return f"{offset_ms} ms off the exchange's"
