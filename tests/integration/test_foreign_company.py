"""The bot shares its account: ccxt and Binance's own SDK trade beside it, and a person sells its coins by hand."""

import asyncio
from contextlib import suppress
from decimal import Decimal

import ccxt
import pytest
from binance_common.configuration import ConfigurationWebSocketAPI
from binance_sdk_spot.spot import Spot

from tests.integration.desk import Desk, desk
from tests.integration.processes import wait_until

pytestmark = pytest.mark.slow

CAPITAL = "5000"
"""Of the account's 10000 USDT; the rest is the person's to trade with."""


class Person:
    """Trades on the bot's account, by ccxt over REST."""

    def __init__(self, at: Desk) -> None:
        base = f"{at.live.endpoints.rest_url}/api/v3"
        kind = {"com": "binance", "us": "binanceus"}[at.live.profile_name]
        options = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
        self._client = getattr(ccxt, kind)(
            {
                "apiKey": at.live.key,
                "secret": at.live.secret,
                "options": options,
                "urls": {"api": {"public": base, "private": base}},
            }
        )
        self._client.load_markets()

    def trade(self, symbol: str, side: str, quantity: object) -> Decimal:
        """Send a market order that is filled; return how much of the base asset the account has won or lost."""
        done = self._client.create_order(_pair(symbol), "market", side, float(str(quantity)))
        assert done["status"] == "closed"
        return Decimal(str(done["filled"])) * (1 if side == "buy" else -1)

    def offer(self, symbol: str, quantity: object, price: object) -> str:
        return str(
            self._client.create_order(_pair(symbol), "limit", "sell", float(str(quantity)), float(str(price)))["id"]
        )

    def cancel(self, symbol: str, order_id: str) -> None:
        self._client.cancel_order(order_id, _pair(symbol))


def _pair(symbol: str) -> str:
    return f"{symbol.removesuffix('USDT')}/USDT"


async def buy_and_sell_by_socket(at: Desk, symbol: str, quantity: str) -> None:
    """A round trip of Binance's own SDK, by the WebSocket API."""
    configuration = ConfigurationWebSocketAPI(at.live.key, at.live.secret, stream_url=at.live.endpoints.ws_api_url)
    api = await Spot(config_ws_api=configuration).websocket_api.create_connection()
    try:
        for side, amount in (("BUY", Decimal(quantity)), ("SELL", Decimal(quantity) / 2)):
            placed = await api.order_place(symbol, side, "MARKET", quantity=amount)
            assert placed.data().result.status == "FILLED"
    finally:
        with suppress(Exception):
            await api.close_connection(close_session=True)


def sells_by_hand(at: Desk, person: Person, symbol: str, foreign: Decimal) -> dict[str, Decimal]:
    """Sell all that is foreign of a symbol and half of the bot's; the symbol stops. Returns the book."""
    book = at.book
    own = book[symbol.removesuffix("USDT")]
    step = Decimal("0.0001") if symbol != "DOGEUSDT" else Decimal(1)
    person.trade(symbol, "sell", ((foreign + own / 2) // step) * step)
    at.stop_of(symbol)
    assert at.book == book, "nothing is booked that nobody accepted"
    return book


@pytest.mark.parametrize("profile", ["com", "us"])
def test_others_trade_on_the_same_account(tmp_path, profile):
    with desk(tmp_path, profile, BOT_CAPITAL=CAPITAL) as at:
        person = Person(at)
        held_before = {"ETH": person.trade("ETHUSDT", "buy", "0.2"), "BTC": person.trade("BTCUSDT", "buy", "0.004")}
        with at.running_bot() as bot:
            for symbol in ("BTCUSDT", "ETHUSDT", "DOGEUSDT"):
                at.trades(symbol, "BUY")
            book = at.book
            foreign = {asset: at.total(asset) - book[asset] for asset in ("BTC", "ETH", "DOGE", "USDT")}
            assert foreign["DOGE"] == 0
            assert all(held_before[asset] * Decimal("0.99") < foreign[asset] for asset in held_before)

            # Purchases and round trips that are not the bot's change nothing of its book.
            person.trade("ETHUSDT", "buy", "0.1")
            person.trade("ETHUSDT", "sell", "0.1")
            person.trade("DOGEUSDT", "buy", 200)
            asyncio.run(buy_and_sell_by_socket(at, "BTCUSDT", "0.002"))
            at.hears("DOGE beside the bot's: 0 before")
            at.hears("BTC beside the bot's")
            assert (at.book, at.status()["stopped"], bot.events("SymbolStopped")) == (book, {}, [])

            # What the bot sells is its own, to the last coin but dust.
            before = at.total("ETH") - book["ETH"]
            sold = at.trades("ETHUSDT", "SELL")
            assert Decimal(sold["quantity"]) <= book["ETH"]
            assert at.total("ETH") - at.book["ETH"] == before
            at.trades("ETHUSDT", "BUY")

            # An open order of somebody else that locks the bot's coins is said.
            order = person.offer("DOGEUSDT", 300, at.price("DOGEUSDT") * 2)
            line = at.hears("are locked by open orders that are not the bot's")
            assert f"({order})" in line
            person.cancel("DOGEUSDT", order)

            # The bot's coins sold by hand: that symbol stops, and no other.
            sells_by_hand(at, person, "ETHUSDT", at.total("ETH") - at.book["ETH"])
            stop = at.stop_of("ETHUSDT")
            assert (stop["symbol"], "less than the bot's" in stop["reason"]) == ("ETHUSDT", True)
            assert "orders that are not the bot's took" in stop["reason"]
            assert at.told("status")["stopped"] == {"ETHUSDT": stop["reason"]}
            checked = at.run("check", "--mode", "testnet")
            assert checked.returncode == 1
            assert f"wrong ETHUSDT: stopped: {stop['reason']}; accept it as it is with: " in checked.stdout
            assert "reconcile ETHUSDT --accept" in checked.stdout
            orders = len(at.orders("ETHUSDT"))
            at.refuses("ETHUSDT", "BUY", "NOT_PLACED")
            at.refuses("ETHUSDT", "SELL", "NOT_PLACED")
            assert len(at.orders("ETHUSDT")) == orders
            at.trades("DOGEUSDT", "BUY")

            # A person accepts it, and the symbol trades again, on what is left.
            said = at.ask("reconcile", "ETHUSDT", "--accept")
            assert "ETH" in said
            at.hears("ETHUSDT: differences are accepted")
            wait_until(lambda: at.book["ETH"] == at.total("ETH"), 10, "the adjustment is booked")
            assert at.told("status")["stopped"] == {}
            sold = at.trades("ETHUSDT", "SELL")
            assert at.total("ETH") == at.book["ETH"]
            at.trades("ETHUSDT", "BUY")

            # The same again, and the bot is stopped before anybody accepts it.
            sells_by_hand(at, person, "BTCUSDT", at.total("BTC") - at.book["BTC"])
        assert at.run("check", "--mode", "testnet").returncode == 1
        at.ask("reconcile", "--accept")
        assert at.book["BTC"] == at.total("BTC")
        assert at.run("check", "--mode", "testnet").returncode == 0
        with at.running_bot() as bot:
            assert (bot.events("SymbolStopped"), at.status()["stopped"]) == ([], {})
            at.trades("BTCUSDT", "BUY")
            found = at.told("reconcile")
            assert (found["findings"], found["stops"]) == ([], {})
            assert at.book["BTC"] == at.total("BTC")
        assert at.live.state()["reused_client_order_ids"] == 0
