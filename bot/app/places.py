"""Where a mode trades and where its klines come from: the profile's addresses, or those of the settings."""

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from bot.adapters.binance import PROFILES, BinanceExchange, BinanceMarketHistory, Budgets, Hosts
from bot.app.data_directory import DataDirectory
from bot.app.keys import Keys
from bot.config import ConfigError, Mode, Settings
from bot.supervision import SystemClock

WITH_ACCOUNT = (Mode.TESTNET, Mode.LIVE)
"""The modes that send orders to an exchange of others."""

EXCHANGE_TIMEOUTS_MS = (1_500, 4_500)
"""To connect and to read: an order call ends before its trader counts as hung."""


class Urls(msgspec.Struct, frozen=True):
    """Where the trading exchange and the market data are; scheme, host and port each, but `ws_api` is complete.

    `ws_api` is empty where the account has no stream, `listen_key_ws` where it has no listenKey.
    """

    trading_rest: str
    market_rest: str
    market_ws: str
    ws_api: str = ""
    listen_key_ws: str = ""


def places(settings: Settings) -> Urls:
    """Return where the settings lead; nowhere in demo. Raises ConfigError where the profile has no such place."""
    if settings.mode is Mode.DEMO:
        return Urls("", "", "")
    trading = _hosts(settings.exchange.profile, settings.mode)
    rest = settings.exchange.rest_url or (trading.rest_url if trading else "")
    ws = settings.exchange.ws_url or (trading.ws_url if trading else "")
    if not rest or not ws:
        raise ConfigError(
            f"exchange.profile: {settings.exchange.profile} has no testnet; "
            "give exchange.rest_url and exchange.ws_url, or take the profile com"
        )
    market = _hosts(settings.market_data.profile or settings.exchange.profile, Mode.PAPER)
    assert market is not None
    own_market = bool(settings.market_data.profile)
    market_rest = settings.market_data.rest_url or (market.rest_url if own_market else rest)
    market_ws = settings.market_data.ws_url or (market.ws_url if own_market else ws)
    # The keys go nowhere but to the place that was named: an exchange of one's own has its own ws_api_url.
    known = trading.ws_api_url if trading and not settings.exchange.rest_url else ""
    listen_key_ws = ws if PROFILES[settings.exchange.profile].has_listen_key else ""
    return Urls(rest, market_rest, market_ws, settings.exchange.ws_api_url or known, listen_key_ws)


def reach(settings: Settings) -> tuple[BinanceMarketHistory, Callable[[Keys], BinanceExchange]]:
    """Return what a mode trades through, for `check`: the market, and the account that keys open.

    Raises ConfigError, ConfigurationRefused.
    """
    clock, urls = SystemClock(), places(settings)
    window, profile = settings.exchange.recv_window_ms, settings.exchange.profile
    budgets = Budgets(clock, DataDirectory(settings.directory))
    market = BinanceMarketHistory(
        urls.market_rest,
        clock,
        profile=settings.market_data.profile or profile,
        budget=budgets.of(urls.market_rest),
    )

    def open_account(keys: Keys) -> BinanceExchange:
        budget = budgets.of(urls.trading_rest)
        return BinanceExchange(urls.trading_rest, clock, keys.key, keys.secret, window, profile=profile, budget=budget)

    return market, open_account


def _hosts(profile: str, mode: Mode) -> Hosts | None:
    return PROFILES[profile].testnet if mode is Mode.TESTNET else PROFILES[profile].live


def exchange_name(settings: Settings, urls: Urls) -> str:
    """Return the profile and the host: a port may change between two starts of a server on this machine."""
    return f"{settings.exchange.profile}@{urlsplit(urls.trading_rest).hostname}"
