"""A strategy is loaded by import path, or refused with a line that says why."""

from decimal import Decimal

import pytest

from bot.domain.scalping import Scalping
from bot.domain.strategy import StrategyError, load_strategy

BOTH = {"buy_drop": Decimal("0.01"), "sell_rise": Decimal("0.01")}


class Incomplete:
    warmup = 1

    def decide(self, state, kline, position):
        """Lacks initial and observe."""


def test_the_default_rule_is_loaded_by_its_path():
    assert isinstance(load_strategy("bot.domain.scalping:Scalping", BOTH), Scalping)


@pytest.mark.parametrize(
    ("path", "parameters", "says"),
    [
        ("", BOTH, "package.module:Class"),
        ("bot.domain.scalping", BOTH, "package.module:Class"),
        (":Scalping", BOTH, "package.module:Class"),
        ("bot.domain.scalping:", BOTH, "package.module:Class"),
        ("bot.domain.nowhere:Scalping", BOTH, "nowhere"),
        ("bot.domain.scalping:Nothing", BOTH, "Nothing"),
        ("bot.domain.scalping:Scalping", {}, "buy_drop"),
        ("bot.domain.scalping:Scalping", BOTH | {"other": Decimal(1)}, "other"),
        ("bot.domain.scalping:Scalping", BOTH | {"buy_drop": Decimal(1)}, "buy_drop"),
        (f"{__name__}:Incomplete", {}, "initial, observe"),
    ],
)
def test_a_strategy_that_cannot_be_loaded(path, parameters, says):
    with pytest.raises(StrategyError, match=says) as refusal:
        load_strategy(path, parameters)
    assert repr(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
