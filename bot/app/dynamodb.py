"""DynamoDB as the settings name it: opened, and examined line by line for `check`. boto3 is imported only here on."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from bot.app.data_directory import DataDirectory
from bot.config import ConfigError, Settings
from bot.supervision import Clock, SystemClock

if TYPE_CHECKING:
    from bot.adapters.dynamodb import DynamoHistory

READ_PATIENCE_MS = 15_000
"""How long a command repeats what is busy; nobody supervises it."""


def open_history(
    settings: Settings, clock: Clock | None = None, patience_ms: int = READ_PATIENCE_MS
) -> "DynamoHistory":
    """Open the tables that the settings name; nothing is asked yet."""
    from bot.adapters.dynamodb import DynamoHistory

    return DynamoHistory(settings.aws, settings.keep_open_klines_days, clock or SystemClock(), patience_ms)


def subjects(settings: Settings, directory: DataDirectory, create: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    """Give what there is to examine, each as a name and a question, which raises StoreError, ConfigError with the fix.

    With `create` the tables that are absent are made.
    """
    from bot.app.dynamodb_cost import in_words, month_of

    with open_history(settings) as history:
        yield "aws credentials", lambda: f"from {history.credentials()}, {history.place}"
        for name in history.tables.names:
            yield f"table {name}", partial(history.tables.create if create else history.tables.examine, name)
        yield "tables' book", lambda: _book(settings, directory, history)
        count, days = len(settings.symbols), settings.keep_open_klines_days
        for what, closed_only in (("", settings.store_closed_only), (", closed candles only", True)):
            if what and settings.store_closed_only:
                continue
            month = month_of(count, settings.interval, closed_only, days)
            yield f"a month of {count} symbols{what}", partial(in_words, month)


def _book(settings: Settings, directory: DataDirectory, history: "DynamoHistory") -> str:
    known, ours = history.tables.identity(), directory.identity()
    if known is None:
        return "nobody's yet, the first run makes them its own"
    wanted = {"mode": settings.mode.value, "bot_id": settings.bot_id}
    if ours is not None and ours.mode == settings.mode.value:
        wanted |= {"exchange": ours.exchange, "account": ours.account}
    differing = [f"{key} is {known[key]!r}, not {value!r}" for key, value in wanted.items() if known[key] != value]
    if differing:
        raise ConfigError(f"belong to another run ({'; '.join(differing)}): set another aws.table_prefix")
    return f"a {known['mode']} book of {known['bot_id']}, {known['exchange']}"
