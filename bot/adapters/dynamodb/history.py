"""`ports.History` in the DynamoDB that the settings name."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Self

from bot.adapters.dynamodb.connection import PATIENCE_MS, Connection
from bot.adapters.dynamodb.reader import Reader
from bot.adapters.dynamodb.tables import Tables
from bot.adapters.dynamodb.writer import Writer
from bot.config import AwsSettings
from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.supervision import Clock


class DynamoHistory:
    """Klines and trades in two tables. Thread-safe; nothing is asked before the first call.

    A call repeats by itself what may pass, for `patience_ms`, and then raises StoreBusy. An open kline is shown for
    `keep_open_klines_days` after its open_time.
    """

    def __init__(
        self, aws: AwsSettings, keep_open_klines_days: int, clock: Clock, patience_ms: int = PATIENCE_MS
    ) -> None:
        self._connection = Connection(aws, clock, patience_ms)
        self.tables = Tables(self._connection, aws)
        self._writer = Writer(self._connection, self.tables, keep_open_klines_days)
        self._reader = Reader(self._connection, self.tables, clock)

    def open(self) -> None:
        """Make the client now rather than at the first call, as `Connection.open`. Raises StoreError."""
        self._connection.open()

    def write(self, klines: Sequence[Kline], trades: Sequence[Trade]) -> None:
        """Store trades, then klines, each once by effect; what was stored of an unfinished write is not sent again.

        Raises StoreBusy, StoreError, ItemsRefused.
        """
        self._writer.write(klines, trades)

    def klines(
        self,
        symbol: str | None = None,
        interval: str | None = None,
        since: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Kline]:
        """Iterate over klines by (open_time, is_closed, event_time), oldest first; of several symbols, merged.

        `since` is the smallest open_time in ms; `limit` keeps the newest so many. Raises StoreBusy, StoreError, also
        in the middle.
        """
        return self._reader.klines(symbol, interval, since, limit)

    def last_klines(self, symbol: str, count: int, closed_only: bool = False) -> list[Kline]:
        """Return the last `count` klines (or closed klines) of a symbol in message order, oldest first."""
        return self._reader.last_klines(symbol, count, closed_only)

    def trades(self, symbol: str | None = None) -> Iterator[Trade]:
        """Iterate over all trades by (time, client_order_id), oldest first."""
        return self._reader.trades(symbol)

    def traded(self, symbol: str) -> dict[str, Decimal]:
        """Return the quantities of a symbol's stored trades (base asset), by client order id."""
        return self._reader.traded(symbol)

    def trade(self, symbol: str, client_order_id: str) -> Trade | None:
        """Return the trade that an order made, None if it made none or it is not stored."""
        return self._reader.trade(symbol, client_order_id)

    def symbols(self) -> list[str]:
        """Return the symbols that were ever written, sorted."""
        return self.tables.symbols()

    def credentials(self) -> str:
        """Return in words where the AWS credentials come from. Raises StoreError where there are none."""
        return self._connection.credentials()

    @property
    def place(self) -> str:
        """Where the tables are, in words."""
        return self._connection.place

    def close(self) -> None:
        """Let go of connections; a call that waits to be repeated fails with its reason."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
