"""The names by which actors reach one another; a name survives every restart of its actor."""

from bot.supervision import Address

ACCOUNT = Address("account")
ARCHIVE = Address("archive")
BRIDGE = Address("bridge")
METRICS = Address("metrics")
MONITOR = Address("monitor")
PERSISTENCE = Address("persistence")
PORTFOLIO = Address("portfolio")
PUBLISHER = Address("publisher")


def feed(symbol: str) -> Address:
    return Address("feed", symbol)


def stream(number: int) -> Address:
    return Address("stream", str(number))


def trader(symbol: str) -> Address:
    return Address("trader", symbol)
