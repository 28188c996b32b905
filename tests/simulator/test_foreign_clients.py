"""Judges that this project did not write: ccxt and python-binance each trade through a session."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import ccxt
import pytest
from binance.client import Client
from binance.exceptions import BinanceAPIException

from tests.simulator.support import LiveClient, running


@pytest.fixture(scope="module")
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
