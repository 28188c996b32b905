"""DynamoDB as the settings name it: opened, and examined line by line for `check`. boto3 is imported only here on."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bot.app.account import noted_names
from bot.app.data_directory import REBUILT, DataDirectory
from bot.config import ConfigError, Settings
from bot.supervision import Clock, SystemClock

if TYPE_CHECKING:
    from bot.adapters.dynamodb import DynamoHistory

READ_PATIENCE_MS = 5_000
"""How long a command repeats what is busy; nobody supervises it."""
CHECK_PATIENCE_MS = 3_000


def open_history(
    settings: Settings, clock: Clock | None = None, patience_ms: int = READ_PATIENCE_MS
) -> "DynamoHistory":
    """Open the tables that the settings name; nothing is asked yet."""
    from bot.adapters.dynamodb import DynamoHistory

    return DynamoHistory(settings.aws, settings.keep_open_klines_days, clock or SystemClock(), patience_ms)


Say = Callable[[str, Callable[[], str]], bool]
"""Asks a question and prints its answer under a name, or the StoreError or ConfigError it raises; True: it was ok."""


def examine(settings: Settings, directory: DataDirectory, create: bool, say: Say) -> None:
    """Examine credentials, region and tables, and say what a month costs; with `create` make tables that are absent."""
    from bot.app.dynamodb_cost import in_words, month_of

    with open_history(settings, patience_ms=CHECK_PATIENCE_MS) as history:
        if say("aws credentials", lambda: f"from {history.credentials()}, {history.place}"):
            look = history.tables.create if create else history.tables.examine
            told = [say(f"table {name}", partial(look, name)) for name in history.tables.names]
            if all(told):
                say("tables' book", lambda: _book(settings, directory, history))
    count = len(settings.symbols)
    month = month_of(count, settings.interval, settings.store_closed_only, settings.keep_open_klines_days)
    if settings.aws.billing == "provisioned":
        say("aws.write_units", lambda: _units(settings.aws.write_units, month.provisioned_units))
    say(f"a month of {count} symbols", lambda: in_words(month))
    if not settings.store_closed_only:
        closed = month_of(count, settings.interval, True, settings.keep_open_klines_days)
        say(f"a month of {count} symbols, closed klines only", lambda: in_words(closed))


def _units(given: int, needed: int) -> str:
    if given < needed:
        raise ConfigError(f"{given} are too few: {needed} are needed; raise it, or take aws.billing on_demand")
    return f"{given}, {needed} are needed"


def _book(settings: Settings, directory: DataDirectory, history: "DynamoHistory") -> str:
    known, ours = history.tables.identity(), directory.identity()
    if known is None:
        return "nobody's yet, the first run makes them its own"
    wanted = _of_settings(settings)
    if ours is not None and ours.mode == settings.mode.value:
        wanted |= {"exchange": ours.exchange, "account": ours.account}
        if known["account"] in noted_names(directory):
            del wanted["account"]
    if differing := _differing(known, wanted):
        raise ConfigError(f"belong to another run ({differing}): set another aws.table_prefix")
    return f"a {known['mode']} book of {known['bot_id']}, {known['exchange']}"


def whose_else(settings: Settings, directory: DataDirectory, history: "DynamoHistory") -> str:
    """Return in a line that the tables are another bot's than the directory, or where it is empty the settings, name.

    For commands that only read: without a directory, which they do not need, they cannot know account and exchange, and
    reading harms nobody. So it is said, and not refused as a run's writing is. Raises StoreError, DataDirectoryError.
    """
    known, ours = history.tables.identity(), directory.identity()
    if known is None:
        return ""
    wanted = _of_settings(settings) if ours is None else msgspec.structs.asdict(ours)
    if wanted.get("account") == REBUILT or known["account"] in noted_names(directory):
        wanted.pop("account", None)
    differing = _differing(known, wanted)
    if not differing:
        return ""
    return (
        f"these are another bot's: the tables {' and '.join(history.tables.names)} {history.place} belong to another "
        f"run ({differing}); if that is not meant, set aws.table_prefix, mode, bot_id or --data-dir as in your run"
    )


def _of_settings(settings: Settings) -> dict[str, str]:
    return {"mode": settings.mode.value, "bot_id": settings.bot_id}


def _differing(known: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    return "; ".join(f"{key} is {known[key]!r}, not {value!r}" for key, value in wanted.items() if known[key] != value)
