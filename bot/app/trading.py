"""Settings and flags turned into what decisions are made with: strategy, sizes, limits, symbol rules."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from bot.config import ConfigError, Settings
from bot.domain.decision import Run
from bot.domain.exchange_info import FilterError, rules_from_exchange_info
from bot.domain.filters import SymbolRules, default_rules
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Strategy, StrategyError, load_strategy

RULES_NOTE = "rules"
"""Under which the journal keeps the rules of the run's symbols, for those who read the book without an exchange."""

_rules = msgspec.json.Decoder(list[SymbolRules])

SCALPING_PATH = f"{Scalping.__module__}:{Scalping.__name__}"


def sizing_parameters(settings: Settings) -> SizingParameters:
    """Return the sizes and limits that the settings name."""
    return SizingParameters(
        fraction=settings.fraction,
        sell_fraction=settings.sell_fraction,
        max_exposure=settings.max_exposure,
        slippage=settings.slippage,
        fee=settings.fee,
        limits=RiskLimits(
            stop_loss=settings.stop_loss,
            take_profit=settings.take_profit,
            cooldown_ms=settings.cooldown * 1000,
            max_daily_loss=settings.max_daily_loss,
            max_price_deviation=settings.max_price_deviation or None,
            max_quote_age_ms=settings.max_quote_age * 1000,
            max_orders_per_minute=settings.max_orders_per_minute,
        ),
        max_slippage_bps=settings.max_slippage_bps,
    )


def strategy_of(settings: Settings) -> Strategy:
    """Return the configured strategy; the scalping rule gets its two thresholds. Raises ConfigError."""
    try:
        return load_strategy(settings.strategy.path, _strategy_parameters(settings))
    except StrategyError as error:
        raise ConfigError(f"strategy.path: {error}") from None


def run_of(settings: Settings, start_time: int) -> Run:
    """Return what is stored of a run that begins at `start_time` (ms UTC), so that `why` can tell its thresholds."""
    return Run(
        start_time=start_time,
        mode=settings.mode.value,
        strategy=settings.strategy.path,
        parameters=_strategy_parameters(settings),
        only_closed=settings.compare_on == "closed",
    )


def _strategy_parameters(settings: Settings) -> dict[str, Decimal]:
    parameters = dict(settings.strategy.parameters)
    if settings.strategy.path == SCALPING_PATH:
        return {"buy_drop": settings.buy_drop, "sell_rise": settings.sell_rise, **parameters}
    return parameters


def offline_rules(symbols: Iterable[str], filters: Path | None) -> dict[str, SymbolRules]:
    """Return the rules of `symbols` from the `--filters` file (Binance's exchangeInfo JSON), else the default ones.

    Raises ConfigError that names the symbol that has none, or what is wrong with the file.
    """
    symbols = tuple(symbols)
    given: dict[str, SymbolRules] = {}
    if filters is not None:
        try:
            given = rules_from_exchange_info(json.loads(filters.read_text("utf-8")), symbols)
        except OSError as error:
            raise ConfigError(f"--filters {filters}: {error.strerror}; give an existing file") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"--filters {filters}: no valid JSON: {error}") from None
        except FilterError as error:
            raise ConfigError(f"--filters {filters}: {error}; give what GET /api/v3/exchangeInfo answers") from None
    rules = {}
    for symbol in symbols:
        known = given.get(symbol) or default_rules(symbol)
        if known is None:
            raise ConfigError(
                f"{symbol}: no filters are built in for it; give --filters FILE with the exchangeInfo JSON that has it"
            )
        rules[symbol] = known
    one_quote_asset(rules)
    return rules


def one_quote_asset(rules: Mapping[str, SymbolRules]) -> str:
    """Return the quote asset that all symbols share. Raises ConfigError if they do not."""
    quotes = {r.quote_asset: symbol for symbol, r in rules.items()}
    if len(quotes) > 1:
        listed = ", ".join(f"{symbol} in {asset}" for asset, symbol in sorted(quotes.items()))
        raise ConfigError(
            f"symbols: all must share one quote asset, those that the book has too, but these do not: {listed}; "
            "run them apart, each in a --data-dir of its own"
        )
    return next(iter(quotes))


def fingerprint(api_key: str) -> str:
    """Return a name for an account that tells nothing of its key."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:12]


def encode_rules(rules: Mapping[str, SymbolRules]) -> str:
    """Return the rules as the text of a journal note."""
    return msgspec.json.encode(list(rules.values())).decode()


def decode_rules(note: str | None) -> dict[str, SymbolRules]:
    """Return the rules by symbol from a journal note, none without one."""
    return {r.symbol: r for r in _rules.decode(note or "[]")}
