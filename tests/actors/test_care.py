"""A quarantined trader's stand-in: the position is kept, limits still sell, nothing is bought, doubts are settled."""

from decimal import Decimal

import pytest

from bot.actors import addresses
from bot.actors.trader import TraderActor, TraderSettings
from bot.domain.care import Bystander, Liquidator
from bot.domain.risk import RiskLimits
from bot.domain.sizing import SizingParameters
from tests.support.builders import klines_of

BTC = addresses.trader("BTCUSDT")
STOP = RiskLimits(stop_loss=Decimal("0.05"))


def take(pump, klines):
    for kline in klines:
        pump.kline(kline)
        pump.run()


def into_care(pump, strategy, limits):
    node = pump.nodes[BTC]
    proper = node.factory

    def stand_in(context):
        settings = TraderSettings(symbol="BTCUSDT", in_care=True, **{**pump.settings, "limits": limits})
        return TraderActor(
            context,
            settings,
            pump.rules["BTCUSDT"],
            strategy,
            pump.gateway,
            pump.journal,
            pump.store,
            pump.traders["BTCUSDT"],
            pump.clock.now_ms,
        )

    node.factory = stand_in
    pump.restart(BTC)
    return proper


@pytest.fixture
def klines():
    return klines_of("100", "98.9", "97", "90", "88", "87.9", "89.5")


def sides(pump):
    return [fill.side.value for entry in pump.raw_journal.settled() for fill in entry.fills]


def test_limits_act_on_and_nothing_is_bought(new_pump, klines):
    pump = new_pump(sizing=SizingParameters(limits=STOP))
    take(pump, klines[:2])
    into_care(pump, Bystander(), STOP)
    take(pump, klines[2:])
    assert sides(pump) == ["BUY", "SELL"]
    assert pump.traders["BTCUSDT"].value.last == klines[-1]


def test_hold_keeps_the_position(new_pump, klines):
    pump = new_pump(sizing=SizingParameters(limits=STOP))
    take(pump, klines[:2])
    into_care(pump, Bystander(), RiskLimits())
    take(pump, klines[2:])
    assert sides(pump) == ["BUY"]
    assert pump.traders["BTCUSDT"].value.position.quantity > 0


def test_sell_sells_at_the_next_message(new_pump, klines):
    pump = new_pump()
    take(pump, klines[:2])
    into_care(pump, Liquidator(), RiskLimits())
    take(pump, klines[2:3])
    assert sides(pump) == ["BUY", "SELL"]


def test_an_order_in_doubt_is_settled_in_care(new_pump, klines):
    pump = new_pump()
    pump.exchange.plan.append("executed_no_reply")
    take(pump, klines[:2])
    assert not sides(pump)
    into_care(pump, Bystander(), RiskLimits())
    pump.advance(2_000)
    assert sides(pump) == ["BUY"]
    assert not pump.raw_journal.unresolved()
    assert pump.traders["BTCUSDT"].value.position.quantity > 0


def test_after_care_the_strategy_goes_on_from_the_last_message(new_pump, klines):
    pump = new_pump()
    take(pump, klines[:2])
    proper = into_care(pump, Bystander(), RiskLimits())
    take(pump, klines[2:6])
    pump.nodes[BTC].factory = proper
    pump.restart(BTC)
    take(pump, klines[6:])
    # 87.9 to 89.5 is a rise of 1.8 %; against what the proper trader saw last it would be a fall.
    assert sides(pump) == ["BUY", "SELL"]
