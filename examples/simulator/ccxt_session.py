"""A ccxt bot against the simulated exchange: it trades, meets a thin book, a limit and a reply that never comes.

python -m bot.main simulator --json > exchange.json &
python examples/simulator/ccxt_session.py exchange.json
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import ccxt


def connect(ends: dict[str, str]) -> Any:
    """Return a ccxt client whose spot requests, signed and not, go to the simulated exchange."""
    base = f"{ends['rest_url']}/api/v3"
    return ccxt.binance(
        {
            "apiKey": ends["api_key"],
            "secret": ends["api_secret"],
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False},
            "urls": {"api": {"public": base, "private": base}},
        }
    )


def simulate(ends: dict[str, str], path: str, **values: Any) -> None:
    """Tell the exchange, over its own paths, what is to happen."""
    body = json.dumps(values).encode()
    urllib.request.urlopen(f"{ends['rest_url']}/sim/{path}", body, timeout=5).close()


def main() -> None:
    ends = json.loads(Path(sys.argv[1]).read_text())
    exchange = connect(ends)
    exchange.load_markets()

    bought = exchange.create_order("BTC/USDT", "market", "buy", 0.005)
    print("bought", bought["filled"], "BTC for", bought["cost"], "USDT; fee", bought["fees"] or bought["fee"])

    simulate(ends, "depth", symbol="BTCUSDT", thin=True)
    cut = exchange.create_order("BTC/USDT", "market", "buy", 0.05)
    print("in a thin book", cut["info"]["status"], "with", cut["filled"], "of", cut["amount"])
    simulate(ends, "depth", symbol="BTCUSDT", thin=False)

    simulate(ends, "fault", kind="error", code=-1003)
    try:
        exchange.fetch_balance()
    except ccxt.DDoSProtection as error:
        print("limited:", exchange.last_response_headers.get("Retry-After"), "s to wait;", type(error).__name__)

    # The order is executed and the connection is cut: ask by the client order id before anything else.
    simulate(ends, "fault", kind="order_executed_no_reply")
    try:
        exchange.create_order("BTC/USDT", "market", "sell", 0.001, params={"newClientOrderId": "mine-1"})
    except ccxt.NetworkError:
        found = exchange.fetch_order(None, "BTC/USDT", {"origClientOrderId": "mine-1"})
        print("no reply, and yet", found["status"], found["filled"])

    print("left:", exchange.fetch_balance()["BTC"]["free"], "BTC")


if __name__ == "__main__":
    main()
