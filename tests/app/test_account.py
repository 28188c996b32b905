"""Who may trade and who is refused at start, and what a run with real money says before its first order."""

from dataclasses import dataclass
from decimal import Decimal

import pytest

from bot.adapters.sqlite import SqliteJournal
from bot.app.account import account_name, admit, limits_of_live, note_name, noted_names, spending
from bot.app.data_directory import DataDirectory
from bot.config import ConfigError, Mode, load_settings
from bot.ports import ConfigurationRefused, ExchangeUnavailable


@dataclass
class Rights:
    withdraws: bool | None = False
    trades: bool = True

    def can_trade(self):
        return self.trades

    def may_withdraw(self):
        return self.withdraws

    def uid(self):
        return None


@pytest.mark.parametrize("mode", [Mode.TESTNET, Mode.LIVE])
def test_a_key_that_may_withdraw_is_refused_with_reason_and_fix(mode):
    with pytest.raises(ConfigurationRefused, match=r"may withdraw .*steals.*: switch withdrawals off"):
        admit(Rights(withdraws=True), mode)


def test_an_account_that_may_not_trade_is_refused():
    with pytest.raises(ConfigurationRefused, match=r"may not trade \(canTrade is false\): enable"):
        admit(Rights(trades=False), Mode.TESTNET)


def test_what_the_exchange_does_not_tell_is_said_and_in_live_is_a_warning():
    assert admit(Rights(), Mode.LIVE) == "may trade and may not withdraw"
    testnet, live = (admit(Rights(withdraws=None), mode) for mode in (Mode.TESTNET, Mode.LIVE))
    assert testnet.startswith("the exchange does not tell whether this key may withdraw")
    assert live == f"warning, {testnet}"


def test_no_answer_is_no_permission():
    class Away(Rights):
        def may_withdraw(self):
            raise ExchangeUnavailable("away")

    with pytest.raises(ExchangeUnavailable):
        admit(Away(), Mode.LIVE)


def test_an_account_is_named_by_the_exchange_or_by_a_hash_that_hides_the_key():
    assert account_name(354937868, "k" * 64) == "uid 354937868"
    assert account_name(None, "k" * 64) == account_name(None, "k" * 64) != account_name(None, "l" * 64)
    assert "k" * 4 not in account_name(None, "k" * 64)


def live(**more):
    variables = {"BOT_CAPITAL": "500", "BOT_MAX_DAILY_LOSS": "0.05", "BOT_EXCHANGE__PROFILE": "us", **more}
    return load_settings({"mode": "live"}, environment={name: value for name, value in variables.items() if value})


@pytest.mark.parametrize("key", ["capital", "max_daily_loss"])
def test_live_needs_its_two_limits(key):
    with pytest.raises(ConfigError, match=rf"^{key}: mode live does not start without it; .*BOT_{key.upper()}"):
        limits_of_live(live(**{f"BOT_{key.upper()}": ""}))
    assert limits_of_live(live()) == "capital = 500, max_daily_loss = 0.05"


def test_what_live_may_spend_is_said_in_money():
    said = "\n".join(spending(live(), "https://api.binance.us", "uid 7", "USDT", Decimal("480.5")))
    for part in (
        "REAL MONEY: mode live on us at https://api.binance.us, account uid 7",
        "capital = 500 USDT",
        "worth 480.5 USDT now",
        "fraction = 0.1 of that, 48.05 USDT",
        "max_exposure = 1, 480.5 USDT",
        "max_daily_loss = 0.05, 24.025 USDT",
        "MARKET orders of BTCUSDT, ETHUSDT, DOGEUSDT; stop them with: halt --data-dir data/live",
    ):
        assert part in said


def test_the_kind_of_order_is_said():
    lines = [*spending(live(BOT_MAX_SLIPPAGE_BPS="20"), "http://h", "uid 7", "USDT", Decimal(500))]
    assert lines[-1].startswith("LIMIT IOC orders at most 20 bps from the close of BTCUSDT, ")


def test_a_book_remembers_all_that_its_account_was_ever_called(tmp_path):
    directory = DataDirectory(tmp_path)
    assert noted_names(directory) == frozenset()
    assert not directory.orders.exists()
    with SqliteJournal(directory.orders) as journal:
        assert note_name(journal, "key 1") == {"key 1"}
        assert note_name(journal, "uid 7") == note_name(journal, "key 1") == {"key 1", "uid 7"}
    assert noted_names(directory) == {"key 1", "uid 7"}
