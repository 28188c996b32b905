"""One log entry of each kind that is published, with all that its form can hold."""

from decimal import Decimal

from bot.domain.kline import Kline
from bot.domain.order import Side, Trade
from bot.messages import BookOpened, LogEntry, SymbolStopped
from bot.supervision import (
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    DeadLetter,
)

MINUTE_MS = 60_000
START_MS = 1_621_036_800_000


def a_kline(number: int = 0, symbol: str = "BTCUSDT", close: str = "49710.04000000") -> Kline:
    """Return the closed kline of the minute `number` after START_MS, as a stream told it."""
    open_time = START_MS + number * MINUTE_MS
    close_time = open_time + MINUTE_MS - 1
    return Kline(
        symbol,
        "1m",
        open_time,
        close_time,
        close_time,
        Decimal("49671.92000000"),
        Decimal("49717.08000000"),
        Decimal("49651.01000000"),
        Decimal(close),
        Decimal("24.90390000"),
        Decimal("1237377.12345678"),
        True,
        close_time + 12,
    )


def a_trade(number: int = 0, symbol: str = "BTCUSDT") -> Trade:
    return Trade(
        symbol=symbol,
        side=Side.BUY,
        time=START_MS + number * MINUTE_MS + MINUTE_MS - 1,
        price=Decimal("49710.04"),
        quantity=Decimal("0.02011"),
        quote_quantity=Decimal("999.6689044"),
        commission=Decimal("0.00002011"),
        commission_asset="BTC",
        close=Decimal("49710.04"),
        order_id=4711 + number,
        client_order_id=f"bh-{number:012d}",
        mode="paper",
        bot_id="bulkhead",
        reason="signal",
        commissions=(("BTC", Decimal("0.00001")), ("BNB", Decimal("1E-8"))),
    )


ENTRIES: dict[str, LogEntry] = {
    "Kline": a_kline(),
    "Trade": a_trade(),
    "SymbolStopped": SymbolStopped("trader/BTCUSDT", "BTCUSDT", "the book differs", START_MS),
    "BookOpened": BookOpened(
        "book", "paper", "com@api.binance.com", "paper", "bulkhead", Decimal("10000"), "[]", START_MS
    ),
    "ActorStarted": ActorStarted("trader/BTCUSDT", 1, "trader", START_MS),
    "ActorStopped": ActorStopped("trader/BTCUSDT", 3, "trader", START_MS, abandoned=True),
    "ActorFailed": ActorFailed("trader/BTCUSDT", 1, "handle", "Kline", "ValueError: no", START_MS),
    "ActorRestarted": ActorRestarted("trader/BTCUSDT", 2, 1, 104, START_MS),
    "ActorQuarantined": ActorQuarantined("trader/BTCUSDT", "5 restarts in 30 s", START_MS),
    "DeadLetter": DeadLetter("trader/BTCUSDT", "Kline", "ValueError: no", 3, START_MS, number=7),
}
