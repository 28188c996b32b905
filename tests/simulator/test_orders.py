"""What an order does: fills, commission, locks, statuses, ids, cancels, and how replies look."""

import re
from decimal import Decimal

import pytest

from tests.simulator.support import NOW, ORDER, Desk

D = Decimal


@pytest.fixture
def btc() -> Desk:
    desk = Desk()
    desk.set_price("BTCUSDT", "60000")
    desk.set_book(bids=[("59999", "0.05"), ("59990", "1")], asks=[("60008", "0.005"), ("60013", "1")])
    return desk


def test_market_buy_by_quantity_in_full(btc: Desk) -> None:
    answer = btc.order(quantity="0.00833", newClientOrderId="bk-3f9a")
    reply = dict(answer.json)
    order_id = reply.pop("orderId")
    first = reply["fills"][0]["tradeId"]
    assert reply == {
        "symbol": "BTCUSDT",
        "orderListId": -1,
        "clientOrderId": "bk-3f9a",
        "transactTime": NOW,
        "price": "0.00000000",
        "origQty": "0.00833000",
        "executedQty": "0.00833000",
        "origQuoteOrderQty": "0.00000000",
        "cummulativeQuoteQty": "499.88329000",
        "status": "FILLED",
        "timeInForce": "GTC",
        "type": "MARKET",
        "side": "BUY",
        "workingTime": NOW,
        "fills": [
            {
                "price": "60008.00000000",
                "qty": "0.00500000",
                "commission": "0.00000500",
                "commissionAsset": "BTC",
                "tradeId": first,
            },
            {
                "price": "60013.00000000",
                "qty": "0.00333000",
                "commission": "0.00000333",
                "commissionAsset": "BTC",
                "tradeId": first + 1,
            },
        ],
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }
    assert btc.balance("BTC") == (D("0.00832167"), 0)
    assert btc.balance("USDT") == (D("10000") - D("499.88329"), 0)
    shown = btc.signed("GET", ORDER, symbol="BTCUSDT", orderId=order_id).json
    assert shown == {
        **{k: v for k, v in reply.items() if k not in ("fills", "transactTime")},
        "orderId": order_id,
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": NOW,
        "updateTime": NOW,
        "isWorking": True,
    }
    trades = btc.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", orderId=order_id).json
    assert [t["qty"] for t in trades] == ["0.00500000", "0.00333000"]
    assert trades[0] == {
        "symbol": "BTCUSDT",
        "id": first,
        "orderId": order_id,
        "orderListId": -1,
        "price": "60008.00000000",
        "qty": "0.00500000",
        "quoteQty": "300.04000000",
        "commission": "0.00000500",
        "commissionAsset": "BTC",
        "time": NOW,
        "isBuyer": True,
        "isMaker": False,
        "isBestMatch": True,
    }


def test_commission_is_rounded_up_and_of_a_sell_in_quote(btc: Desk) -> None:
    btc.give("BTC", "1")
    fills = btc.order(side="SELL", quantity="0.00011").json["fills"]
    assert fills == [
        {
            **fills[0],
            "price": "59999.00000000",
            "qty": "0.00011000",
            "commission": "0.00659989",
            "commissionAsset": "USDT",
        }
    ]
    bought = btc.order(quantity="0.00009").json["fills"][0]
    assert (bought["commission"], bought["commissionAsset"]) == ("0.00000009", "BTC")
    eth = Desk(symbols=("ETHUSDT",))
    eth.set_book("ETHUSDT", asks=[("3333.33", "9")])
    assert eth.order(symbol="ETHUSDT", quantity="0.0123").json["fills"][0]["commission"] == "0.00001230"


def test_quote_order_quantity(btc: Desk) -> None:
    reply = btc.order(quoteOrderQty="500").json
    assert reply["origQuoteOrderQty"] == "500.00000000"
    assert reply["origQty"] == reply["executedQty"] == "0.00833000"
    assert D(reply["cummulativeQuoteQty"]) <= 500 < D(reply["cummulativeQuoteQty"]) + D("0.00001") * 60013
    sold = btc.order(side="SELL", quoteOrderQty="300").json
    assert D(sold["cummulativeQuoteQty"]) <= 300
    assert sold["status"] == "FILLED"


def test_an_exhausted_book_expires_the_rest(btc: Desk) -> None:
    btc.set_book(asks=[("60000", "0.01"), ("60010", "0.02")])
    answer = btc.order(quantity="0.1")
    assert (answer.json["status"], answer.json["executedQty"]) == ("EXPIRED", "0.03000000")
    assert answer.json["origQty"] == "0.10000000"
    assert answer.json["expiryReason"] == "INSUFFICIENT_LIQUIDITY"
    assert len(answer.json["fills"]) == 2
    assert btc.balance("USDT") == (D("10000") - D("1800.2"), 0)
    empty = btc.order(quantity="0.1")
    assert (empty.json["status"], empty.json["fills"]) == ("EXPIRED", [])


def test_what_is_taken_is_gone_until_the_next_move(btc: Desk) -> None:
    prices = [btc.order(quantity="0.005").json["fills"][0]["price"] for _ in range(2)]
    assert prices == ["60008.00000000", "60013.00000000"]


@pytest.mark.parametrize(
    ("kind", "has_status", "has_fills"), [("ACK", False, False), ("RESULT", True, False), ("FULL", True, True)]
)
def test_response_types(btc: Desk, kind: str, has_status: bool, has_fills: bool) -> None:
    reply = btc.order(quantity="0.001", newOrderRespType=kind).json
    assert ("status" in reply, "fills" in reply) == (has_status, has_fills)
    if kind == "ACK":
        assert set(reply) == {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"}


def test_default_response_types(btc: Desk) -> None:
    assert btc.limit(quantity="0.001", price="50000").json["fills"] == []
    assert "status" not in btc.order(type="LIMIT_MAKER", quantity="0.001", price="50000").json


def test_missing_client_order_id_is_generated(btc: Desk) -> None:
    assert re.fullmatch("[a-zA-Z0-9]{22}", btc.order(quantity="0.001").json["clientOrderId"])


def test_a_used_id_is_refused_only_while_its_order_is_open(btc: Desk) -> None:
    resting = btc.limit(quantity="0.001", price="50000", newClientOrderId="mine").json
    assert resting["status"] == "NEW"
    duplicate = btc.order(quantity="0.001", newClientOrderId="mine")
    assert duplicate.error == (400, -2010, "Duplicate order sent.")
    assert btc.exchange.state()["reused_client_order_ids"] == 0
    btc.signed("DELETE", ORDER, symbol="BTCUSDT", origClientOrderId="mine")
    first = btc.order(quantity="0.001", newClientOrderId="mine").json
    second = btc.order(quantity="0.001", newClientOrderId="mine").json
    assert (first["status"], second["status"]) == ("FILLED", "FILLED")
    assert second["orderId"] > first["orderId"]
    assert btc.exchange.state()["reused_client_order_ids"] == 2
    newest = btc.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="mine").json
    assert newest["orderId"] == second["orderId"]


def test_insufficient_balance_rejects_the_whole_order(btc: Desk) -> None:
    text = "Account has insufficient balance for requested action."
    btc.set_book(bids=[("59999", "10")], asks=[("60000", "10")])
    assert btc.order(quantity="0.16667").error == (400, -2010, text)
    assert btc.order(quoteOrderQty="10000.01").error == (400, -2010, text)
    assert btc.order(side="SELL", quantity="0.001").error == (400, -2010, text)
    assert btc.limit(quantity="0.2", price="50000.01").error == (400, -2010, text)
    assert btc.balance("USDT") == (10000, 0)
    assert btc.order(quantity="0.16666").status == 200


def test_a_resting_limit_locks_and_fills_when_the_market_crosses(btc: Desk) -> None:
    placed = btc.limit(quantity="0.001", price="58000", newClientOrderId="low").json
    assert (placed["status"], placed["fills"]) == ("NEW", [])
    assert btc.balance("USDT") == (D("9942"), D("58"))
    btc.set_price("BTCUSDT", "58500")
    assert btc.signed("GET", "/api/v3/openOrders", symbol="BTCUSDT").json[0]["clientOrderId"] == "low"
    btc.set_price("BTCUSDT", "57000")
    shown = btc.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="low").json
    assert (shown["status"], shown["cummulativeQuoteQty"]) == ("FILLED", "58.00000000")
    assert btc.balance("USDT") == (D("9942"), 0)
    assert btc.balance("BTC") == (D("0.000999"), 0)
    trade = btc.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT").json[0]
    assert (trade["isMaker"], trade["price"]) == (True, "58000.00000000")
    assert btc.signed("GET", "/api/v3/openOrders").json == []


def test_a_resting_sell_locks_the_base_asset(btc: Desk) -> None:
    btc.give("BTC", "0.5")
    btc.limit(side="SELL", quantity="0.2", price="70000")
    assert btc.balance("BTC") == (D("0.3"), D("0.2"))
    btc.set_price("BTCUSDT", "71000")
    btc.set_price("BTCUSDT", "71000")
    done = btc.signed("GET", "/api/v3/allOrders", symbol="BTCUSDT").json[0]
    assert D(done["cummulativeQuoteQty"]) == D(done["executedQty"]) * 70000


def test_a_limit_that_crosses_takes_and_rests_with_the_remainder(btc: Desk) -> None:
    reply = btc.limit(quantity="0.008", price="60010").json
    assert (reply["status"], reply["executedQty"]) == ("PARTIALLY_FILLED", "0.00500000")
    assert btc.balance("USDT") == (D("10000") - D("0.005") * 60008 - D("0.003") * 60010, D("0.003") * 60010)


def test_immediate_or_cancel_and_fill_or_kill(btc: Desk) -> None:
    ioc = btc.limit(quantity="0.008", price="60010", timeInForce="IOC").json
    assert (ioc["status"], ioc["executedQty"]) == ("EXPIRED", "0.00500000")
    assert ioc["expiryReason"] == "UNFILLED_IOC_QUANTITY_EXPIRED"
    fok = btc.limit(quantity="0.01", price="60012.99", timeInForce="FOK").json
    assert (fok["status"], fok["executedQty"], fok["fills"]) == ("EXPIRED", "0.00000000", [])
    assert fok["expiryReason"] == "UNFILLED_FOK_ORDER_EXPIRED"
    assert btc.limit(quantity="0.01", price="60013", timeInForce="FOK").json["status"] == "FILLED"
    assert btc.balance("USDT")[1] == 0


def test_limit_maker_must_not_take(btc: Desk) -> None:
    answer = btc.order(type="LIMIT_MAKER", quantity="0.001", price="60008")
    assert answer.error == (400, -2010, "Order would immediately match and take.")
    assert btc.order(type="LIMIT_MAKER", quantity="0.001", price="60007.99").status == 200


def test_cancelling(btc: Desk) -> None:
    order_id = btc.limit(quantity="0.001", price="50000", newClientOrderId="mine").json["orderId"]
    assert btc.balance("USDT") == (9950, 50)
    reply = btc.signed("DELETE", ORDER, symbol="BTCUSDT", origClientOrderId="mine", newClientOrderId="bye").json
    assert reply == {
        "symbol": "BTCUSDT",
        "origClientOrderId": "mine",
        "orderId": order_id,
        "orderListId": -1,
        "clientOrderId": "bye",
        "transactTime": NOW,
        "price": "50000.00000000",
        "origQty": "0.00100000",
        "executedQty": "0.00000000",
        "origQuoteOrderQty": "0.00000000",
        "cummulativeQuoteQty": "0.00000000",
        "status": "CANCELED",
        "timeInForce": "GTC",
        "type": "LIMIT",
        "side": "BUY",
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }
    assert btc.balance("USDT") == (10000, 0)
    again = btc.signed("DELETE", ORDER, symbol="BTCUSDT", orderId=order_id)
    assert again.error == (400, -2011, "Unknown order sent.")
    for client_id in ("mine", "bye"):
        shown = btc.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId=client_id).json
        assert (shown["status"], shown["orderId"]) == ("CANCELED", order_id)


def test_cancel_restrictions_and_cancel_all(btc: Desk) -> None:
    order_id = btc.limit(quantity="0.001", price="50000").json["orderId"]
    btc.limit(quantity="0.001", price="51000")
    refused = btc.signed(
        "DELETE", ORDER, symbol="BTCUSDT", orderId=order_id, cancelRestrictions="ONLY_PARTIALLY_FILLED"
    )
    assert refused.error == (400, -2011, "Order was not canceled due to cancel restrictions.")
    assert btc.signed("DELETE", ORDER, symbol="BTCUSDT", orderId=order_id, cancelRestrictions="X").code == -1145
    assert [o["status"] for o in btc.signed("DELETE", "/api/v3/openOrders", symbol="BTCUSDT").json] == ["CANCELED"] * 2
    assert btc.signed("DELETE", "/api/v3/openOrders", symbol="BTCUSDT").code == -2011


def test_asking_for_orders(btc: Desk) -> None:
    first = btc.order(quantity="0.001", newClientOrderId="one").json["orderId"]
    btc.clock.advance(1000)
    second = btc.order(quantity="0.001", newClientOrderId="two").json["orderId"]
    assert btc.signed("GET", ORDER, symbol="BTCUSDT", orderId=1).error == (400, -2013, "Order does not exist.")
    assert btc.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="nope").code == -2013
    both = btc.signed("GET", ORDER, symbol="BTCUSDT", orderId=first, origClientOrderId="two")
    assert both.error == (400, -2039, "Client order ID is not correct for this order ID.")
    neither = btc.signed("GET", ORDER, symbol="BTCUSDT")
    assert neither.msg == "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"

    def ids(**params: int) -> list[int]:
        return [o["orderId"] for o in btc.signed("GET", "/api/v3/allOrders", symbol="BTCUSDT", **params).json]

    assert ids() == [first, second]
    assert ids(limit=1) == [second]
    assert ids(startTime=NOW, limit=1) == [first]
    assert ids(orderId=second) == [second]
    assert ids(endTime=NOW) == [first]
    wide = btc.signed("GET", "/api/v3/allOrders", symbol="BTCUSDT", startTime=1, endTime=86_400_002)
    assert wide.error == (400, -1127, "More than 24 hours between startTime and endTime.")


def test_asking_for_trades(btc: Desk) -> None:
    for _ in range(3):
        btc.order(quantity="0.001")
        btc.clock.advance(1000)
    trades = btc.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT").json
    ids = [t["id"] for t in trades]
    assert ids == sorted(ids)

    def asked(**params: int) -> list[int]:
        return [t["id"] for t in btc.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", **params).json]

    assert asked(limit=2) == ids[1:]
    assert asked(fromId=ids[1], limit=1) == [ids[1]]
    assert asked(startTime=NOW + 1000, endTime=NOW + 1000) == [ids[1]]
    refused = btc.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", orderId=1, startTime=1)
    assert refused.error == (400, -1128, "Combination of optional parameters invalid.")


def test_account(btc: Desk) -> None:
    account = btc.signed("GET", "/api/v3/account").json
    assert account["balances"] == [
        {"asset": "USDT", "free": "10000.00000000", "locked": "0.00000000"},
        {"asset": "BTC", "free": "0.00000000", "locked": "0.00000000"},
    ]
    assert account["commissionRates"]["taker"] == "0.00100000"
    assert isinstance(account["uid"], int)
    only = btc.signed("GET", "/api/v3/account", omitZeroBalances="true").json["balances"]
    assert [b["asset"] for b in only] == ["USDT"]
    assert "uid" not in Desk("us").signed("GET", "/api/v3/account").json


def test_strategy_is_echoed(btc: Desk) -> None:
    reply = btc.order(quantity="0.001", strategyId=5, strategyType=1_000_000).json
    assert (reply["strategyId"], reply["strategyType"]) == (5, 1_000_000)


def test_times_in_microseconds(btc: Desk) -> None:
    answer = btc.send("GET", "/api/v3/time", x_mbx_time_unit="MICROSECOND")
    assert answer.json == {"serverTime": NOW * 1000}
    row = btc.send("GET", "/api/v3/klines", "symbol=BTCUSDT&interval=1m&limit=1", x_mbx_time_unit="microsecond").json[0]
    assert row[6] - row[0] == 60_000_000 - 1
    assert btc.send("GET", "/api/v3/time", x_mbx_time_unit="NANO").code == -1194
    assert Desk("us").send("GET", "/api/v3/time", x_mbx_time_unit="MICROSECOND").json == {"serverTime": NOW}
