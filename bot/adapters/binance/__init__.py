"""Binance and Binance US behind the ports: live klines, history, rules and orders."""

from bot.adapters.binance.budget import Budgets
from bot.adapters.binance.profiles import PROFILES, Hosts, Profile
from bot.adapters.binance.public import BinanceMarketHistory
from bot.adapters.binance.rest import BinanceExchange
from bot.adapters.binance.stream import BinanceKlineConnection, BinanceMarketStream
from bot.adapters.binance.user_stream import BinanceAccountConnection, BinanceAccountStream

__all__ = [
    "PROFILES",
    "BinanceAccountConnection",
    "BinanceAccountStream",
    "BinanceExchange",
    "BinanceKlineConnection",
    "BinanceMarketHistory",
    "BinanceMarketStream",
    "Budgets",
    "Hosts",
    "Profile",
]
