"""The book compared with the account while no bot runs: by keys alone, under the data directory's lock."""

from decimal import Decimal

from bot.actors.portfolio import START_CASH_NOTE
from bot.adapters.sqlite import SqliteJournal
from bot.app.account import account_name
from bot.app.data_directory import DataDirectory, Identity
from bot.app.keys import find_keys
from bot.app.places import WITH_ACCOUNT, exchange_name, places, reach
from bot.app.trading import RULES_NOTE, decode_rules
from bot.config import ConfigError, Mode, Settings
from bot.domain.order_id import order_prefix
from bot.reconciler import Comparison, Reconciler, Undecided
from bot.supervision import SystemClock


def compare_by_hand(settings: Settings, directory: DataDirectory, symbol: str | None, accept: bool) -> Comparison:
    """Compare, and with `accept` book the differences of `symbol` (None: all) and free what they stopped.

    Raises ConfigError, DataDirectoryError, ConfigurationRefused, KeysUnavailable, ExchangeUnavailable, StoreError.
    """
    if settings.mode not in WITH_ACCOUNT:
        raise ConfigError(f"mode {settings.mode.value} has no account at an exchange to compare with")
    keys, clock = find_keys(settings), SystemClock()
    _, open_account = reach(settings)
    account = open_account(keys)
    directory.lock()
    try:
        name = account_name(account.uid(), keys.key)
        directory.belong_to(
            Identity(settings.mode.value, exchange_name(settings, places(settings)), name, settings.bot_id)
        )
        with SqliteJournal(directory.orders) as journal:
            reconciler = Reconciler(
                account,
                journal,
                decode_rules(journal.get_note(RULES_NOTE)),
                (),
                order_prefix(settings.bot_id, settings.mode.value),
                Decimal(journal.get_note(START_CASH_NOTE) or "0"),
                settings.mode is Mode.TESTNET,
                clock.now_ms,
            )
            chosen = None if symbol is None else (symbol,)
            try:
                comparison = reconciler.accept(chosen) if accept else reconciler.compare()
            except Undecided as error:
                raise ConfigError(f"not accepted: {error}") from None
        stopped = directory.stopped_symbols() if accept and symbol is None else {}
        for freed in {*comparison.freed, *stopped} - comparison.undecided:
            directory.free_symbol(freed)
        return comparison
    finally:
        directory.release()
