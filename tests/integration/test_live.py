"""Mode live against simulated exchanges: klines of one, orders on another, as the original bot had it."""

from decimal import Decimal

import pytest

from tests.integration.desk import desk
from tests.integration.processes import wait_until

pytestmark = pytest.mark.slow

CAPITAL = Decimal(500)
LIVE = {
    "BOT_CAPITAL": str(CAPITAL),
    "BOT_MAX_DAILY_LOSS": "0.5",
    "BOT_FRACTION": "0.4",
    "BOT_MAX_PRICE_DEVIATION": "0.02",
    "BOT_MAX_QUOTE_AGE": "3",
}


@pytest.fixture
def at(tmp_path):
    with desk(tmp_path, "us", "live", data_from="com", **LIVE) as opened:
        yield opened


def most_spent(at):
    """The most that purchases ever took, sales and their profit given back, by the exchange's own fills."""
    spent = most = Decimal(0)
    for fill in at.live.state()["fills"]:
        value = Decimal(fill["quoteQty"])
        spent += value if fill["isBuyer"] else -value
        most = max(most, spent)
    return most


def test_klines_of_one_exchange_orders_on_another_and_no_more_than_the_capital(at):
    with at.running_bot("--yes-real-money") as bot:
        said = "".join(bot.errors)
        assert f"REAL MONEY: mode live on us at {at.live.endpoints.rest_url}" in said
        for part in ("capital = 500 USDT", "fraction = 0.4 of that, 200 USDT", "max_daily_loss = 0.5, 250 USDT"):
            assert part in said, said
        for symbol in ("BTCUSDT", "ETHUSDT"):
            at.trades(symbol, "BUY")
        while most_spent(at) < CAPITAL - 20:
            at.trades("DOGEUSDT", "BUY")
        at.refuses("BTCUSDT", "BUY", "CASH")
        assert CAPITAL - 20 < most_spent(at) <= CAPITAL
        assert at.total("USDT") >= 10_000 - CAPITAL
        at.trades("ETHUSDT", "SELL")
        asked, orders_there = at.market.state(), at.live.state()
        assert (asked["orders"], asked["fills"]) == ([], [])
        assert not {path for path in asked["requests"] if "order" in path or "account" in path.lower()}
        assert not {path for path in orders_there["requests"] if "klines" in path or path.startswith("/stream")}
        assert most_spent(at) <= CAPITAL
        assert at.status()["mode"] == "live"
    assert {asset: held for asset, held in at.book.items() if asset != "USDT"} == {
        asset: at.total(asset) for asset in ("BTC", "ETH", "DOGE")
    }


def test_prices_that_the_two_exchanges_do_not_share_are_not_traded_on(at):
    with at.running_bot("--yes-real-money") as bot:
        at.trades("BTCUSDT", "BUY")
        orders = len(at.orders())
        for share in (Decimal("-0.08"), Decimal("0.2")):
            before = len(bot.events("skipped"))
            at.move("BTCUSDT", share, everywhere=False)
            wait_until(lambda before=before: len(bot.events("skipped")) > before, 15, "a refusal")
            refusal = bot.events("skipped")[-1]
            assert (refusal["symbol"], refusal["name"]) == ("BTCUSDT", "PRICE")
            assert "is more than 0.02 off the middle of the book, " in refusal["detail"]
        assert len(at.orders()) == orders
        at.move("BTCUSDT", Decimal("-0.01"))
        at.trades("BTCUSDT", "BUY")


def test_a_market_that_closes_where_the_orders_go_is_waited_for(at):
    """Klines of the other exchange go on; the first order is refused, the next ones are not sent."""
    with at.running_bot("--yes-real-money", BOT_MAX_PRICE_DEVIATION="0.5") as bot:
        at.trades("ETHUSDT", "BUY")
        at.control("symbol", symbol="ETHUSDT", status="HALT")
        assert "Market is closed." in at.refuses("ETHUSDT", "SELL", "REJECTED", everywhere=False)["detail"]
        at.hears("the exchange changed the trading rules of ETHUSDT", 25)
        orders = len(at.orders())
        for side in ("BUY", "SELL"):
            refused = at.refuses("ETHUSDT", side, "MARKET_CLOSED", everywhere=False)
            assert "its status is HALT, not TRADING" in refused["detail"]
        assert len(at.orders()) == orders
        heard = len(bot.lines)
        at.control("symbol", symbol="ETHUSDT", status="TRADING")
        at.hears("the exchange changed the trading rules of ETHUSDT", 25, since=heard)
        at.trades("ETHUSDT", "BUY")
