"""What a trading strategy is: a pure function from messages to signals, chosen by import path in the configuration."""

from collections.abc import Mapping
from decimal import Decimal
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec

from bot.domain.kline import Kline
from bot.domain.order import Side
from bot.domain.position import Position


class Signal(msgspec.Struct, frozen=True):
    """A wish to trade. `reason` says which rule fired; `sell_all` asks for the whole position, not a fraction of it.

    `is_flatten`: a person's command, which a halt does not stop and no age makes void.
    """

    side: Side
    reason: str
    sell_all: bool = False
    is_flatten: bool = False


class Thresholds(msgspec.Struct, frozen=True):
    """At or below `buy` the next close buys, at or above `sell` it sells a position; None where there is no bound."""

    buy: Decimal | None = None
    sell: Decimal | None = None


class Strategy(Protocol):
    """One instance serves any number of symbols: deterministic, it keeps all it remembers in the state it returns.

    The class is called with the configuration's strategy parameters as keyword arguments of Decimal values. A strategy
    whose signals depend on the next close alone may say so by a method `thresholds(state)` that returns Thresholds, for
    people and `why`.
    """

    warmup: int
    """How many of the last stored klines rebuild the state after a restart."""

    def initial(self) -> Any:
        """Return the state before the first message; states are immutable."""

    def decide(self, state: Any, kline: Kline, position: Position) -> tuple[Any, Signal | None]:
        """Take one message; return the new state and a signal, or None. A SELL without a position is ignored."""

    def observe(self, state: Any, kline: Kline) -> Any:
        """Take one message that must not trade (a gap, a stale or a warm-up kline); return the new state."""


def thresholds_of(strategy: Strategy, state: Any) -> Thresholds | None:
    """Return what the next close is measured against, None where the strategy does not say."""
    method = getattr(strategy, "thresholds", None)
    return None if method is None else cast(Thresholds | None, method(state))


class StrategyError(ValueError):
    """A strategy that cannot be loaded; the text names the import path and the fix."""


def load_strategy(path: str, parameters: Mapping[str, Decimal]) -> Strategy:
    """Import `package.module:Class` and call it with `parameters`.

    Raises StrategyError where the module, the class or a parameter is wrong.
    """
    module_name, _, class_name = path.partition(":")
    if not module_name or not class_name:
        raise StrategyError(f"strategy {path!r}: write it as package.module:Class")
    try:
        factory = getattr(import_module(module_name), class_name)
        strategy = factory(**parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise StrategyError(f"strategy {path!r} cannot be loaded: {error}") from error
    missing = [name for name in ("warmup", "initial", "decide", "observe") if not hasattr(strategy, name)]
    if missing:
        raise StrategyError(f"strategy {path!r} lacks {', '.join(missing)}: see bot.domain.strategy.Strategy")
    return cast(Strategy, strategy)
