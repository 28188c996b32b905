"""Judges that this project did not write: ccxt, python-binance and Binance's own SDK each trade through a session."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import ccxt
import ccxt.pro
import pytest
from binance import AsyncClient, BinanceSocketManager
from binance.client import Client
from binance.exceptions import BinanceAPIException
from binance_common.configuration import (
    ConfigurationRestAPI,
    ConfigurationWebSocketAPI,
    ConfigurationWebSocketStreams,
)
from binance_common.errors import BadRequestError
from binance_sdk_spot.spot import Spot

from tests.simulator.support import LiveClient, running


@pytest.fixture
def exchange() -> Iterator[LiveClient]:
    with running(interval_ms=500, seed=11) as client:
        yield client


def ccxt_client(live: LiveClient, kind: str = "binance", secret: str | None = None) -> Any:
    base = f"{live.endpoints.rest_url}/api/v3"
    return getattr(ccxt, kind)(
        {
            "apiKey": live.key,
            "secret": secret or live.secret,
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False},
            "urls": {"api": {"public": base, "private": base}},
        }
    )


def binance_client(live: LiveClient, secret: str | None = None) -> Any:
    class Loopback(Client):  # type: ignore[misc]
        API_URL = f"{live.endpoints.rest_url}/api"

    return Loopback(live.key, secret or live.secret)


@pytest.mark.parametrize(("kind", "profile"), [("binance", "com"), ("binanceus", "us")])
def test_ccxt_session(kind: str, profile: str) -> None:
    with running(interval_ms=500, seed=11, profile_name=profile) as live:
        client = ccxt_client(live, kind)
        markets = client.load_markets()
        assert {"BTC/USDT", "ETH/USDT", "DOGE/USDT"} <= set(markets)
        btc = markets["BTC/USDT"]
        assert (btc["active"], btc["taker"]) == (True, 0.001)
        assert btc["limits"]["cost"]["min"] == (5 if profile == "com" else 1)
        assert client.fetch_balance()["USDT"]["free"] == 10000
        candles = client.fetch_ohlcv("BTC/USDT", "1m", limit=1000)
        assert len(candles) == 1000
        assert [b[0] - a[0] for a, b in pairwise(candles)] == [60_000] * 999
        assert client.fetch_ohlcv("ETH/USDT", "1d", limit=5)[-1][1] > 0
        assert abs(client.fetch_time() - candles[-1][0]) < 120_000

        bought = client.create_order("BTC/USDT", "market", "buy", 0.005, params={"newClientOrderId": "one"})
        assert (bought["status"], bought["filled"], bought["clientOrderId"]) == ("closed", 0.005, "one")
        assert abs(sum(t["fee"]["cost"] for t in bought["trades"]) - 0.000005) < 1e-9
        assert {t["fee"]["currency"] for t in bought["trades"]} == {"BTC"}
        assert client.fetch_balance()["BTC"]["free"] == pytest.approx(0.004995)
        spent = client.create_market_buy_order_with_cost("BTC/USDT", 100)
        assert 99 < spent["cost"] <= 100
        sold = client.create_order("BTC/USDT", "market", "sell", 0.004)
        assert (sold["status"], sold["trades"][0]["fee"]["currency"]) == ("closed", "USDT")

        with pytest.raises(ccxt.ExchangeError, match="NOTIONAL"):
            client.create_order("BTC/USDT", "market", "buy", 0.00001)
        with pytest.raises(ccxt.ExchangeError, match="LOT_SIZE"):
            client.private_post_order({"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.000015"})
        with pytest.raises(ccxt.InsufficientFunds):
            client.create_order("BTC/USDT", "market", "sell", 1)
        with pytest.raises(ccxt.AuthenticationError):
            ccxt_client(live, kind, "0" * 64).fetch_balance()
        with pytest.raises(ccxt.BadSymbol):
            client.public_get_klines({"symbol": "NOPE", "interval": "1m"})

        again = client.create_order("BTC/USDT", "market", "buy", 0.001, params={"newClientOrderId": "one"})
        assert again["id"] != bought["id"]
        assert live.state()["reused_client_order_ids"] == 1

        resting = client.create_order("BTC/USDT", "limit", "buy", 0.001, 30000, {"newClientOrderId": "rest"})
        assert resting["status"] == "open"
        assert client.fetch_balance()["USDT"]["used"] == 30
        with pytest.raises(ccxt.ExchangeError, match="Duplicate order sent"):
            client.create_order("BTC/USDT", "market", "buy", 0.001, params={"newClientOrderId": "rest"})
        assert [o["id"] for o in client.fetch_open_orders("BTC/USDT")] == [resting["id"]]
        assert client.cancel_order(resting["id"], "BTC/USDT")["status"] == "canceled"
        assert client.fetch_order(resting["id"], "BTC/USDT")["status"] == "canceled"
        assert client.fetch_balance()["USDT"]["used"] == 0
        with pytest.raises(ccxt.OrderNotFound):
            client.cancel_order(resting["id"], "BTC/USDT")
        with pytest.raises(ccxt.OrderNotFound):
            client.fetch_order("1", "BTC/USDT")
        assert len(client.fetch_orders("BTC/USDT")) == 5
        trades = client.fetch_my_trades("BTC/USDT")
        assert {t["order"] for t in trades} >= {bought["id"], sold["id"]}


def test_python_binance_session(exchange: LiveClient) -> None:
    client = binance_client(exchange)
    assert {s["symbol"] for s in client.get_exchange_info()["symbols"]} == {"BTCUSDT", "ETHUSDT", "DOGEUSDT"}
    info = client._get("exchangeInfo", data={"symbols": '["BTCUSDT"]'})
    assert [s["symbol"] for s in info["symbols"]] == ["BTCUSDT"]
    assert client.get_asset_balance("USDT")["free"] == "10000.00000000"
    assert len(client.get_klines(symbol="DOGEUSDT", interval="1m", limit=1000)) == 1000
    day_ago = client.get_server_time()["serverTime"] - 3_600_000
    assert len(client.get_historical_klines("ETHUSDT", "1m", day_ago)) in (60, 61)
    assert float(client.get_symbol_ticker(symbol="BTCUSDT")["price"]) > 0

    bought = client.order_market_buy(symbol="ETHUSDT", quantity="0.1", newClientOrderId="one")
    assert bought["status"] == "FILLED"
    sold = client.order_market_sell(symbol="ETHUSDT", quantity="0.09")
    assert {f["commissionAsset"] for f in sold["fills"]} == {"USDT"}
    trades = client.get_my_trades(symbol="ETHUSDT")
    assert {t["orderId"] for t in trades} == {bought["orderId"], sold["orderId"]}

    def refused(action: Any) -> tuple[int, int, str]:
        with pytest.raises(BinanceAPIException) as error:
            action()
        return error.value.status_code, error.value.code, error.value.message

    assert refused(lambda: client.order_market_buy(symbol="ETHUSDT", quantity="0.00001")) == (
        400,
        -1013,
        "Filter failure: LOT_SIZE",
    )
    assert refused(lambda: client.order_market_buy(symbol="BTCUSDT", quantity=0.00001))[1] == -1100  # sent as 1e-05
    assert refused(lambda: binance_client(exchange, "1" * 64).get_account()) == (
        400,
        -1022,
        "Signature for this request is not valid.",
    )
    again = client.order_market_buy(symbol="ETHUSDT", quantity="0.01", newClientOrderId="one")
    assert again["orderId"] != bought["orderId"]
    assert exchange.state()["reused_client_order_ids"] == 1

    resting = client.order_limit_buy(symbol="ETHUSDT", quantity="0.1", price="1500", newClientOrderId="rest")
    assert resting["status"] == "NEW"
    assert refused(lambda: client.order_market_buy(symbol="ETHUSDT", quantity="0.1", newClientOrderId="rest")) == (
        400,
        -2010,
        "Duplicate order sent.",
    )
    assert [o["clientOrderId"] for o in client.get_open_orders(symbol="ETHUSDT")] == ["rest"]
    cancelled = client.cancel_order(symbol="ETHUSDT", origClientOrderId="rest")
    assert (cancelled["status"], cancelled["origClientOrderId"]) == ("CANCELED", "rest")
    assert client.get_order(symbol="ETHUSDT", orderId=resting["orderId"])["status"] == "CANCELED"
    assert len(client.get_all_orders(symbol="ETHUSDT")) == 4
    assert client.response.headers["x-mbx-used-weight-1m"].isdigit()
    client.session.close()


def test_ccxt_pro_session(exchange: LiveClient) -> None:
    asyncio.run(ccxt_pro_session(exchange))


async def ccxt_pro_session(live: LiveClient) -> None:
    base = f"{live.endpoints.rest_url}/api/v3"
    sockets = {"spot": f"{live.endpoints.ws_url}/ws", "ws-api": {"spot": live.endpoints.ws_api_url}}
    client = ccxt.pro.binance(
        {
            "apiKey": live.key,
            "secret": live.secret,
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False},
            "urls": {"api": {"public": base, "private": base, "ws": sockets}},
        }
    )
    try:
        await client.load_markets()
        before = (await client.fetch_balance())["DOGE"]["free"]
        watched = asyncio.gather(client.watch_orders("DOGE/USDT"), client.watch_balance())
        while "userDataStream.subscribe.signature" not in live.state()["requests"]:
            await asyncio.sleep(0.02)
        bought = await client.create_order("DOGE/USDT", "market", "buy", 100)
        orders, balance = await asyncio.wait_for(watched, 60)
        assert {(order["id"], order["symbol"]) for order in orders} == {(bought["id"], "DOGE/USDT")}
        assert balance["DOGE"]["free"] == pytest.approx(before + 99.9)
        candles = await asyncio.wait_for(client.watch_ohlcv("DOGE/USDT", "1m"), 60)
        assert candles[-1][4] > 0
        resting = await client.create_order_ws("DOGE/USDT", "limit", "sell", 90, 0.5)
        assert resting["status"] == "open"
        assert (await client.cancel_order_ws(resting["id"], "DOGE/USDT"))["status"] == "canceled"
        with pytest.raises(ccxt.ExchangeError, match="LOT_SIZE"):
            await client.create_order_ws("DOGE/USDT", "limit", "sell", 10**9, 0.5)
    finally:
        await client.close()


@pytest.mark.parametrize("profile", ["com", "us"])
def test_official_sdk_session(profile: str) -> None:
    with running(interval_ms=200, seed=11, profile_name=profile) as live:
        client = Spot(
            ConfigurationRestAPI(live.key, live.secret, base_path=live.endpoints.rest_url, timeout=60_000),
            ConfigurationWebSocketAPI(live.key, live.secret, stream_url=live.endpoints.ws_api_url),
            ConfigurationWebSocketStreams(stream_url=live.endpoints.ws_url),
        )
        rested_at = sdk_rest_session(client.rest_api)
        asyncio.run(sdk_socket_session(client, rested_at))
        if profile == "com":  # it numbers its subscriptions with UUIDs, and binance.us takes integers only
            asyncio.run(sdk_stream_session(client))


def is_in_one_window(began: float, length_s: int) -> bool:
    """Tell whether no window of a limit ended since: each begins at a multiple of its length, with a count of 0."""
    return time.time() // length_s == began // length_s


def sdk_rest_session(rest: Any) -> float:
    """Return a time before the one order that was not filled."""
    began = time.time()
    assert rest.time().data().server_time > 0
    info = rest.exchange_info(symbols=["BTCUSDT", "ETHUSDT"])
    assert [symbol.symbol for symbol in info.data().symbols] == ["BTCUSDT", "ETHUSDT"]
    ((kind, count),) = [(limit.rateLimitType, limit.count) for limit in info.rate_limits]
    assert (kind, count) == ("REQUEST_WEIGHT", 21) or (count == 20 and not is_in_one_window(began, 60))
    assert len(rest.klines("BTCUSDT", "1m", limit=1000).data()) == 1000
    assert float(rest.ticker_price(symbol="BTCUSDT").data().actual_instance.price) > 0
    assert float(rest.avg_price("BTCUSDT").data().price) > 0
    bought = rest.new_order("BTCUSDT", "BUY", "MARKET", quantity=Decimal("0.01"), new_client_order_id="one").data()
    assert (bought.status, bought.executed_qty, bought.client_order_id) == ("FILLED", "0.01000000", "one")
    assert sum(Decimal(fill.commission) for fill in bought.fills) == Decimal("0.00001")
    assert rest.get_order("BTCUSDT", orig_client_order_id="one").data().order_id == bought.order_id
    assert {trade.order_id for trade in rest.my_trades("BTCUSDT").data()} == {bought.order_id}
    balances = {balance.asset: balance.free for balance in rest.get_account().data().balances}
    assert balances["BTC"] == "0.00999000"
    rested_at = time.time()
    resting = rest.new_order("BTCUSDT", "BUY", "LIMIT", time_in_force="GTC", quantity="0.001", price="30000").data()
    assert [order.order_id for order in rest.get_open_orders(symbol="BTCUSDT").data()] == [resting.order_id]
    assert rest.delete_order("BTCUSDT", order_id=resting.order_id).data().status == "CANCELED"
    with pytest.raises(BadRequestError, match="LOT_SIZE") as refused:
        rest.new_order("BTCUSDT", "BUY", "MARKET", quantity=Decimal("0.000001"))
    assert refused.value.status_code == -1013
    with pytest.raises(BadRequestError, match="Illegal characters"):
        rest.new_order("BTCUSDT", "BUY", "MARKET", quantity=0.00001)  # sent as 1e-05
    return rested_at


async def sdk_socket_session(client: Any, rested_at: float) -> None:
    api = await client.websocket_api.create_connection()
    try:
        events: asyncio.Queue[Any] = asyncio.Queue()
        subscribed = await api.user_data_stream_subscribe_signature()
        subscribed.stream.on("message", lambda event: events.put_nowait(event.actual_instance))
        # Its model of this reply does not know the envelope.
        info = (await api.exchange_info(symbols=["BTCUSDT"])).data().additional_properties["result"]
        assert [symbol["symbol"] for symbol in info["symbols"]] == ["BTCUSDT"]
        assert (await api.klines("BTCUSDT", "1m", limit=5)).data().status == 200
        sold = await api.order_place("BTCUSDT", "SELL", "MARKET", quantity=Decimal("0.004"))
        result = sold.data().result
        assert (result.status, result.executed_qty) == ("FILLED", "0.00400000")
        counts = [limit.count for limit in sold.rate_limits if limit.rateLimitType == "ORDERS"]
        for count, length_s in zip(counts, (10, 86_400), strict=True):
            assert count == 1 or (count == 0 and not is_in_one_window(rested_at, length_s))
        told = [await asyncio.wait_for(events.get(), 60)]
        while type(told[-1]).__name__ != "OutboundAccountPosition":
            told.append(await asyncio.wait_for(events.get(), 60))
        assert {type(event).__name__ for event in told[:-1]} == {"ExecutionReport"}
        assert [told[0].x, told[-2].X, told[-2].z] == ["NEW", "FILLED", result.executed_qty]
        assert [event.t for event in told[1:-1]] == [fill.trade_id for fill in result.fills]
        asked = (await api.order_status("BTCUSDT", order_id=result.order_id)).data().result
        assert asked.status == "FILLED"
        account = (await api.account_status()).data().result
        assert {b.a: b.f for b in told[-1].B} == {
            b.asset: b.free for b in account.balances if b.asset in ("BTC", "USDT")
        }
        trades = (await api.my_trades("BTCUSDT", order_id=result.order_id)).data().result
        assert [trade.id for trade in trades] == [event.t for event in told[1:-1]]
        unknown = (await api.order_status("BTCUSDT", order_id=1)).data()
        assert unknown["error"]["code"] == -2013
    finally:
        await api.close_connection(close_session=True)


async def sdk_stream_session(client: Any) -> None:
    streams = await client.websocket_streams.create_connection()
    try:
        klines: asyncio.Queue[Any] = asyncio.Queue()
        stream = await streams.kline(symbol="btcusdt", interval="1m")
        stream.on("message", klines.put_nowait)
        first = await asyncio.wait_for(klines.get(), 60)
        assert (first.s, first.k.i) == ("BTCUSDT", "1m")
    finally:
        await streams.close_connection(close_session=True)


def test_python_binance_socket_session(exchange: LiveClient) -> None:
    asyncio.run(python_binance_socket_session(exchange))


async def python_binance_socket_session(live: LiveClient) -> None:
    class Loopback(AsyncClient):  # type: ignore[misc]
        API_URL = f"{live.endpoints.rest_url}/api"
        WS_API_URL = live.endpoints.ws_api_url

    client = await Loopback.create(live.key, live.secret)
    manager = BinanceSocketManager(client)
    user = manager.user_socket()
    await user.__aenter__()
    try:
        bought = await client.ws_create_order(symbol="DOGEUSDT", side="BUY", type="MARKET", quantity="100")
        told = [await asyncio.wait_for(user.recv(), 60)]
        while told[-1]["e"] != "outboundAccountPosition":
            told.append(await asyncio.wait_for(user.recv(), 60))
        assert [event["X"] for event in told[:-1]][:: len(told) - 2] == ["NEW", "FILLED"]
        assert {event["i"] for event in told[:-1]} == {bought["orderId"]}
        assert (await client.ws_get_order(symbol="DOGEUSDT", orderId=bought["orderId"]))["status"] == "FILLED"
        with pytest.raises(BinanceAPIException) as refused:
            await client.ws_get_order(symbol="DOGEUSDT", orderId=1)
        assert refused.value.code == -2013
        with pytest.raises(BinanceAPIException) as gone:
            await client.stream_get_listen_key()
        assert (gone.value.status_code, gone.value.code) == (410, 0)
    finally:
        await user.__aexit__(None, None, None)
        await client.close_connection()


UNICORN = Path(__file__).parents[2] / ".venv-foreign" / "bin" / "python"


@pytest.mark.skipif(not UNICORN.exists(), reason="unicorn-binance-websocket-api is set up by scripts/foreign")
def test_unicorn_session(exchange: LiveClient) -> None:
    """In an interpreter of its own, since it brings a dozen packages with it.

    Not with profile us: there its user data stream goes to api.binance.us, whatever URLs it is given.
    """
    ends = exchange.endpoints
    script = Path(__file__).with_name("unicorn_session.py")
    arguments = [ends.rest_url, ends.ws_url, ends.ws_api_url, ends.api_key, ends.api_secret]
    done = subprocess.run([UNICORN, script, *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
