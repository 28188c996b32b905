"""A python-binance bot against the simulated exchange: it trades, is refused, paused, charged in BNB, and reset.

python -m bot.main simulator --json > exchange.json &
python examples/simulator/python_binance_session.py exchange.json
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from binance.client import Client
from binance.exceptions import BinanceAPIException


def connect(ends: dict[str, str]) -> Any:
    """Return a client of the simulated exchange: the addresses are class attributes, read by the constructor."""

    class Loopback(Client):  # type: ignore[misc]
        API_URL = f"{ends['rest_url']}/api"
        MARGIN_API_URL = f"{ends['rest_url']}/sapi"
        WS_API_URL = ends["ws_api_url"]

    return Loopback(ends["api_key"], ends["api_secret"])


def simulate(ends: dict[str, str], path: str, **values: Any) -> None:
    """Tell the exchange, over its own paths, what is to happen."""
    body = json.dumps(values).encode()
    urllib.request.urlopen(f"{ends['rest_url']}/sim/{path}", body, timeout=5).close()


def main() -> None:
    ends = json.loads(Path(sys.argv[1]).read_text())
    client = connect(ends)

    rights = client.get_account_api_permissions()
    print("may withdraw:", rights["enableWithdrawals"])

    # Amounts as strings: a float such as 0.00001 would leave as 1e-05, which Binance refuses.
    bought = client.order_market_buy(symbol="ETHUSDT", quantity="0.1")
    print(bought["status"], bought["executedQty"], "ETH for", bought["cummulativeQuoteQty"], "USDT")

    try:
        client.order_market_buy(symbol="ETHUSDT", quantity="0.00001")
    except BinanceAPIException as error:
        print("refused:", error.code, error.message)

    simulate(ends, "symbol", symbol="ETHUSDT", status="HALT")
    try:
        client.order_market_sell(symbol="ETHUSDT", quantity="0.05")
    except BinanceAPIException as error:
        print("paused:", error.message)
    simulate(ends, "symbol", symbol="ETHUSDT", status="TRADING")

    simulate(ends, "balance", asset="BNB", free="1")
    simulate(ends, "commission", mode="bnb")
    sold = client.order_market_sell(symbol="ETHUSDT", quantity="0.05")
    print("commission in", {fill["commissionAsset"] for fill in sold["fills"]})

    simulate(ends, "reset")
    print("after a reset of the testnet", len(client.get_all_orders(symbol="ETHUSDT")), "orders")
    client.close_connection()


if __name__ == "__main__":
    main()
