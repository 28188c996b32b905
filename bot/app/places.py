"""Where a mode trades and where its klines come from: addresses, from the exchange's profile or the settings."""

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from bot.adapters.binance import PROFILES, BinanceExchange, BinanceMarketHistory, Hosts
from bot.app.keys import Keys
from bot.config import ConfigError, Mode, Settings
from bot.supervision import SystemClock

WITH_ACCOUNT = (Mode.TESTNET, Mode.LIVE)
