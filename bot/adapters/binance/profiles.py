"""Which hosts an exchange is reached at: the differences between binance.com and binance.us as data.

Source: Binance, general information, base URLs.
"""

import msgspec


class Hosts(msgspec.Struct, frozen=True):
    """One place to trade at. `rest_url` and `ws_url` are scheme, host and port only; `ws_api_url` is complete."""

    rest_url: str
    ws_url: str
    ws_api_url: str


class Profile(msgspec.Struct, frozen=True):
    """One exchange; `testnet` is None where the exchange has none."""

    name: str
    live: Hosts
    testnet: Hosts | None


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
        ),
        Profile(
            name="us",
            live=Hosts(
                rest_url="https://api.binance.us",
                ws_url="wss://stream.binance.us:9443",
                ws_api_url="wss://ws-api.binance.us:443/ws-api/v3",
            ),
            testnet=None,
        ),
    )
}
