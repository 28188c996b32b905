"""Whether an account may be traded on, whose it is, and what a run may spend of it."""

import shlex
from collections.abc import Iterator
from decimal import Decimal
from typing import Protocol

from bot.adapters.sqlite import SqliteJournal
from bot.app.data_directory import UID, DataDirectory
from bot.app.trading import fingerprint
from bot.config import ConfigError, Mode, Settings
from bot.domain.money import multiply, plain
from bot.ports import ConfigurationRefused

ACCOUNTS_NOTE = "accounts"
"""In the journal: what the book's account was called, a name a line."""


class AccountRights(Protocol):
    """What an exchange says of an account and of the key that asks. Each call raises as a read of the exchange."""

    def can_trade(self) -> bool: ...

    def may_withdraw(self) -> bool | None: ...

    def uid(self) -> int | None: ...


def admit(rights: AccountRights, mode: Mode) -> str:
    """Return what the key may do, for a person to read.

    Raises ConfigurationRefused for an account that may not trade and for a key that may withdraw: a bot's key lies on
    a machine, and who steals it must not be able to take the money away.
    """
    if not rights.can_trade():
        raise ConfigurationRefused(
            "the account may not trade (canTrade is false): enable spot trading for the key, or ask the exchange "
            "why the account is closed to it"
        )
    may_withdraw = rights.may_withdraw()
    if may_withdraw:
        raise ConfigurationRefused(
            "the API key may withdraw (enableWithdrawals), so that whoever steals it takes the money too: switch "
            "withdrawals off for this key at the exchange, or make a key that may read and trade only"
        )
    if may_withdraw is None:
        warning = "warning, " if mode is Mode.LIVE else ""
        return f"{warning}the exchange does not tell whether this key may withdraw; see to it that it may not"
    return "may trade and may not withdraw"


def limits_of_live(settings: Settings) -> str:
    """Return in words the two limits that real money is not traded without. Raises ConfigError if one is not set."""
    for key in ("capital", "max_daily_loss"):
        if getattr(settings, key) is None:
            raise ConfigError(f"{key}: mode live does not start without it; set it in bot.toml or BOT_{key.upper()}")
    assert settings.capital is not None
    assert settings.max_daily_loss is not None
    return f"capital = {plain(settings.capital)}, max_daily_loss = {plain(settings.max_daily_loss)}"


def account_name(uid: int | None, api_key: str) -> str:
    """Return the name under which a directory remembers its account: the exchange's own, else one made of the key."""
    return f"{UID}{uid}" if uid is not None else fingerprint(api_key)


def note_name(journal: SqliteJournal, name: str) -> frozenset[str]:
    """Remember what the book's account is called; return all that it was ever called.

    An exchange that tells no number has it named after its API key, and keys are changed: topics and tables that bear
    an older name stay the book's. Raises StoreError.
    """
    names = _names(journal)
    if name not in names:
        journal.set_note(ACCOUNTS_NOTE, "\n".join(sorted(names | {name})))
    return names | {name}


def noted_names(directory: DataDirectory) -> frozenset[str]:
    """Return all that the account of a directory's book was ever called. Raises StoreError."""
    if not directory.orders.exists():
        return frozenset()
    with SqliteJournal.read_only(directory.orders) as journal:
        return _names(journal)


def _names(journal: SqliteJournal) -> frozenset[str]:
    return frozenset((journal.get_note(ACCOUNTS_NOTE) or "").splitlines())


def spending(settings: Settings, host: str, account: str, quote_asset: str, equity: Decimal) -> Iterator[str]:
    """Yield what a run with real money may spend, a line each; `equity` is the book's by now, in the quote asset."""

    def share(part: Decimal) -> str:
        return f"{plain(multiply(part, equity))} {quote_asset}"

    assert settings.capital is not None
    assert settings.max_daily_loss is not None
    yield f"REAL MONEY: mode live on {settings.exchange.profile} at {host}, account {account}, bot {settings.bot_id}"
    yield (
        f"it may spend capital = {plain(settings.capital)} {quote_asset} and what it earns; "
        f"the book is worth {plain(equity)} {quote_asset} now"
    )
    yield (
        f"an order: fraction = {plain(settings.fraction)} of that, {share(settings.fraction)}; a symbol: "
        f"max_exposure = {plain(settings.max_exposure)}, {share(settings.max_exposure)}"
    )
    yield (
        f"after a loss of max_daily_loss = {plain(settings.max_daily_loss)}, {share(settings.max_daily_loss)}, "
        "no more is bought until 00:00 UTC"
    )
    bound = settings.max_slippage_bps
    kind = "MARKET orders" if bound is None else f"LIMIT IOC orders at most {plain(bound)} bps from the close"
    where = shlex.quote(str(settings.directory))
    yield f"{kind} of {', '.join(settings.symbols)}; stop them with: halt --data-dir {where}"
