"""The judge of the bot's books: its journal, trades and wallet held against the exchange's own, to the last decimal."""

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from bot.adapters.sqlite import SqliteJournal
from bot.domain.order import OrderStatus
from bot.domain.order_id import order_prefix
from tests.integration.processes import SYMBOLS, told


def assert_same_books(state: dict[str, Any], data: Path, mode: str) -> Counter[str]:
    """Compare a stopped bot's data directory with `GET /sim/state`; return how many orders, fills and so on."""
    with SqliteJournal.read_only(data / "orders.db") as journal:
        entries = {entry.intent.client_order_id: entry for entry in journal.settled()}
        assert not journal.unresolved()
    orders = _compare_orders(state, entries, mode)
    _compare_fills(state, entries)
    _compare_trades(state, orders, told("trades", "--data-dir", data, cwd=data))
    _compare_money(state, told("wallet", "--data-dir", data, cwd=data))
    _compare_klines(told("klines", "--data-dir", data, cwd=data))
    return Counter(
        {"orders": len(orders), "fills": len(state["fills"]), "intents never placed": len(entries) - len(orders)}
    )


def _compare_orders(state, entries, mode):
    """Every order at the exchange is one decision of this bot, in the journal with the same end, and the reverse."""
    ids = [order["clientOrderId"] for order in state["orders"]]
    # One that came too late for its window (-1021) is sent again under its id: the exchange took it once.
    taken = Counter(order["clientOrderId"] for order in state["orders"] if order.get("reject") != -1021)
    assert [name for name, count in taken.items() if count > 1] == [], "sent twice"
    assert state["reused_client_order_ids"] == 0
    prefix = order_prefix("bulkhead", mode)
    assert all(name.startswith(prefix) and re.fullmatch(r"[a-zA-Z0-9-_]{1,36}", name) for name in ids)
    placed = {order["clientOrderId"]: order for order in state["orders"] if "reject" not in order}
    assert set(placed) <= set(entries), "orders without an intent"
    for name, order in placed.items():
        entry = entries[name]
        assert (entry.status.value, entry.order_id) == (order["status"], order["orderId"]), name
        assert (entry.intent.symbol, entry.intent.side.value) == (order["symbol"], order["side"])
        assert entry.intent.quantity == Decimal(order["origQty"])
    for name, entry in entries.items():
        if name not in placed:
            assert entry.status in (OrderStatus.NOT_PLACED, OrderStatus.REJECTED), name
            assert entry.fills == ()
    return placed


def _compare_fills(state, entries):
    """Every fill is booked once."""
    booked = [
        (
            *(fill.symbol, fill.trade_id, fill.order_id, fill.client_order_id, fill.side.value == "BUY"),
            *(fill.price, fill.quantity, fill.quote_quantity, fill.commission, fill.commission_asset),
        )
        for entry in entries.values()
        for fill in entry.fills
    ]
    happened = [
        (
            *(fill["symbol"], fill["id"], fill["orderId"], fill["clientOrderId"], fill["isBuyer"]),
            *(Decimal(fill[name]) for name in ("price", "qty", "quoteQty", "commission")),
            fill["commissionAsset"],
        )
        for fill in state["fills"]
    ]
    assert len(booked) == len(happened)
    assert set(booked) == set(happened)


def _compare_trades(state, orders, trades):
    """Every order that was filled is one stored trade with the order's sums."""
    sums: dict[str, list[Decimal]] = {}
    for fill in state["fills"]:
        total = sums.setdefault(fill["clientOrderId"], [Decimal(0)] * 3)
        for at, name in enumerate(("qty", "quoteQty", "commission")):
            total[at] += Decimal(fill[name])
    stored = [
        (
            *(trade["client_order_id"], trade["order_id"], trade["symbol"], trade["side"]),
            *(Decimal(trade[name]) for name in ("quantity", "quote_quantity", "commission")),
        )
        for trade in trades
    ]
    filled = [
        (name, orders[name]["orderId"], orders[name]["symbol"], orders[name]["side"], *totals)
        for name, totals in sums.items()
    ]
    assert set(filled) - set(stored) == set(), "trades that are not stored"
    assert set(stored) - set(filled) == set(), "trades that never happened"
    assert len(stored) == len(filled)


def _compare_money(state, wallet):
    """Cash and positions, dust included, are the account's balances."""
    balances = {asset: Decimal(held["free"]) + Decimal(held["locked"]) for asset, held in state["balances"].items()}
    assert Decimal(wallet["cash"]) == balances.pop("USDT")
    positions = {symbol.removesuffix("USDT"): Decimal(quantity) for symbol, quantity in wallet["positions"].items()}
    assert positions == balances


def _compare_klines(klines):
    """Of every symbol each candle that closed is stored once, without a gap over all restarts."""
    for symbol in SYMBOLS:
        closed = [kline["open_time"] for kline in klines if kline["symbol"] == symbol and kline["is_closed"]]
        if closed:
            assert closed == list(range(closed[0], closed[-1] + 1, 60_000)), symbol
