"""Where an exchange is reached and what its calls weigh: the differences between binance.com and binance.us as data.

Source: Binance, general information, base URLs; request weights.
"""

from collections.abc import Iterable, Mapping

import msgspec

Weights = Mapping[str, Iterable[tuple[str, int]]]
"""Method and path -> (parameter, weight): the first row whose parameter is sent counts, "" is always sent."""


class Hosts(msgspec.Struct, frozen=True):
    """One place to trade at. `rest_url` and `ws_url` are scheme, host and port only; `ws_api_url` is complete."""

    rest_url: str
    ws_url: str
    ws_api_url: str


class Profile(msgspec.Struct, frozen=True):
    """One exchange; `testnet` is None where it has none, `has_listen_key` where that may be the way to the account's
    stream.
    """

    name: str
    live: Hosts
    testnet: Hosts | None
    weights: Weights
    has_listen_key: bool = False

    def weight(self, method: str, path: str, params: Iterable[str]) -> int:
        """Return what a call weighs; 1 for one that is not in the table."""
        rows = self.weights.get(f"{method} {path}", (("", 1),))
        return next(weight for parameter, weight in rows if not parameter or parameter in params)


_COM_WEIGHTS: Weights = {
    "GET time": (("", 1),),
    "GET exchangeInfo": (("", 20),),
    "GET klines": (("", 2),),
    "GET avgPrice": (("", 2),),
    "GET ticker/bookTicker": (("symbol", 2), ("", 4)),
    "GET account": (("", 20),),
    "GET order": (("", 4),),
    # Free where it succeeds, on binance.com; a refused one is not, and it has to fit before it is known.
    "POST order": (("", 1),),
    "GET openOrders": (("symbol", 6), ("", 80)),
    "GET allOrders": (("", 20),),
    "GET myTrades": (("orderId", 5), ("", 20)),
}
# Since its upgrade of 2026-08-31 what binance.us lists weighs the same; the rest is taken to.
_US_WEIGHTS: Weights = {**_COM_WEIGHTS}

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="com",
            live=Hosts(
                rest_url="https://api.binance.com",
                ws_url="wss://stream.binance.com:9443",
                ws_api_url="wss://ws-api.binance.com:443/ws-api/v3",
            ),
            testnet=Hosts(
                rest_url="https://testnet.binance.vision",
                ws_url="wss://stream.testnet.binance.vision:9443",
                ws_api_url="wss://ws-api.testnet.binance.vision/ws-api/v3",
            ),
            weights=_COM_WEIGHTS,
        ),
        Profile(
            name="us",
            live=Hosts(
                rest_url="https://api.binance.us",
                ws_url="wss://stream.binance.us:9443",
                ws_api_url="wss://ws-api.binance.us:443/ws-api/v3",
            ),
            testnet=None,
            has_listen_key=True,
            weights=_US_WEIGHTS,
        ),
    )
}
