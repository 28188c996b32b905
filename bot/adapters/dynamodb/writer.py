"""How klines and trades get into DynamoDB, each once by effect, whatever is lost, throttled or sent twice.

Source: DynamoDB, BatchWriteItem, PutItem, condition expressions.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from bot.adapters.dynamodb.connection import ConditionFailed, Connection, Pauses, Throttled
from bot.adapters.dynamodb.items import (
    MAX_ITEM_BYTES,
    Item,
    UnfitItem,
    decimal_of,
    item_bytes,
    kline_item,
    trade_item,
)
from bot.adapters.dynamodb.tables import Tables
from bot.domain.kline import Kline, kline_key
from bot.domain.order import Trade
from bot.ports import ItemsRefused, StoreBusy

MAX_BATCH = 25
"""Items of one BatchWriteItem. So many of the largest are 10 MB, under its limit of 16 MB."""
_AT_ONCE = 4
"""Batches on the way at the same time; each has a connection of its own."""
_REMEMBERED = 50_000
_TRADE_TRIES = 5
_NEW_OR_MORE = "attribute_not_exists(#id) OR #quantity < :quantity"

_Key = tuple[str, str]
_Batch = Sequence[tuple[Kline, Item]]


class Writer:
    """Writes from one thread at a time; others wait."""

    def __init__(self, connection: Connection, tables: Tables, keep_open_days: int) -> None:
        self._connection = connection
        self._tables = tables
        self._keep_open_days = keep_open_days
        self._lock = threading.Lock()
        self._symbols: set[str] | None = None
        # What an unfinished write got through, so that the next try begins there and gets further.
        self._taken: set[Kline | Trade] = set()

    def write(self, klines: Sequence[Kline], trades: Sequence[Trade]) -> None:
        """As `ports.History.write`."""
        with self._lock:
            deadline_ms = self._connection.deadline()
            refused: dict[Kline | Trade, str] = {}
            self._register({trade.symbol for trade in trades} | {kline.symbol for kline in klines}, deadline_ms)
            for trade in trades:
                item = None if trade in self._taken else _fitting(trade, refused, partial(trade_item, trade))
                if item is not None:
                    self._put_trade(trade, item, deadline_ms)
                    self._taken.add(trade)
            # A batch must not hold a key twice. The last one counts, as if they came one by one.
            latest = {(kline.symbol, kline_key(kline)): kline for kline in klines}
            self._put_klines([kline for kline in latest.values() if kline not in self._taken], refused, deadline_ms)
            # What is left is of another unfinished write.
            self._taken.difference_update(trades, klines)
            if refused:
                why = next(iter(refused.values()))
                more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
                raise ItemsRefused(f"DynamoDB cannot keep {why}{more}: it stays in the data directory", [*refused])

    def _register(self, symbols: set[str], deadline_ms: int) -> None:
        if self._symbols is None and symbols:
            self._symbols = set(self._tables.symbols(deadline_ms))
        new = symbols - (self._symbols or set())
        if new:
            self._tables.add_symbols(new, deadline_ms)
            self._symbols = (self._symbols or set()) | new

    def _put_trade(self, trade: Trade, item: Item, deadline_ms: int) -> None:
        condition, names, limit = _NEW_OR_MORE, {"#id": "client_order_id"}, item["quantity"]
        for _ in range(_TRADE_TRIES):
            try:
                self._insist(
                    deadline_ms,
                    "put_item",
                    self._tables.trades,
                    Item=item,
                    ConditionExpression=condition,
                    ExpressionAttributeNames={**names, "#quantity": "quantity"},
                    ExpressionAttributeValues={":quantity": limit},
                )
                return
            except ConditionFailed:
                # Stored already: by another run, or by this very write, whose answer got lost. Quantities are compared
                # here, since DynamoDB compares nothing with one that had to be kept as text.
                stored = self._stored_trade(trade, deadline_ms)
                if stored is None:
                    continue
                if decimal_of(stored["quantity"]) >= trade.quantity:
                    return
                condition, names, limit = "#quantity = :quantity", {}, stored["quantity"]
        raise StoreBusy(f"trade {trade.client_order_id} is written by another process too: it is tried again")

    def _stored_trade(self, trade: Trade, deadline_ms: int) -> Item | None:
        key = {"symbol": {"S": trade.symbol}, "client_order_id": {"S": trade.client_order_id}}
        answer = self._insist(deadline_ms, "get_item", self._tables.trades, Key=key, ConsistentRead=True)
        found: Item | None = answer.get("Item")
        return found

    def _put_klines(self, klines: Iterable[Kline], refused: dict[Kline | Trade, str], deadline_ms: int) -> None:
        waiting = deque[tuple[Kline, Item]]()
        for kline in klines:
            item = _fitting(kline, refused, partial(kline_item, kline, self._keep_open_days))
            if item is not None:
                waiting.append((kline, item))
        pauses = Pauses()
        while waiting:
            some = [waiting.popleft() for _ in range(min(_AT_ONCE * MAX_BATCH, len(waiting)))]
            left, reason = self._put_at_once([some[at : at + MAX_BATCH] for at in range(0, len(some), MAX_BATCH)])
            if len(self._taken) > _REMEMBERED:
                self._taken.clear()
            self._taken.update(kline for kline, item in some if _key(item) not in left)
            if not left:
                pauses.reset()
                if waiting and not self._connection.has_time(deadline_ms):
                    raise StoreBusy(f"DynamoDB {self._connection.place} is slow: what is left follows")
                continue
            waiting.extendleft(reversed([each for each in some if _key(each[1]) in left]))
            # No smaller batch next: of one that is too much a part is taken, so only the pause has to grow.
            if not self._connection.has_time(deadline_ms):
                raise reason or Throttled(
                    f"DynamoDB {self._connection.place} takes less a second than it is given (UnprocessedItems, table "
                    f"{self._tables.klines}): it is tried again; if it stays so, take aws.billing on_demand, or more "
                    "aws.write_units"
                )
            if 2 * len(left) <= len(some):
                pauses.reset()  # it takes nearly what it is given
            self._connection.pause(pauses.longer(), deadline_ms)

    def _put_at_once(self, batches: Sequence[_Batch]) -> tuple[set[_Key], StoreBusy | None]:
        """Write batches at the same time; return the keys of what was not taken, and why if a whole batch was not.

        Raises StoreError once all have ended. So DynamoDB far away takes as much as one nearby.
        """
        left: set[_Key] = set()
        failures: list[Exception] = []

        def put(batch: _Batch) -> None:
            try:
                left.update(self._put_batch([item for _, item in batch]))
            except Exception as error:
                failures.append(error)
                left.update(_key(item) for _, item in batch)

        # Threads of their own: who waits for an answer must not keep the process from ending.
        others = [threading.Thread(target=put, args=(batch,), name="dynamodb", daemon=True) for batch in batches[1:]]
        for thread in others:
            thread.start()
        put(batches[0])
        for thread in others:
            thread.join()
        for error in failures:
            if not isinstance(error, StoreBusy):
                raise error
        return left, next((error for error in failures if isinstance(error, StoreBusy)), None)

    def _put_batch(self, items: Sequence[Item]) -> set[_Key]:
        """Write up to 25 items and return the keys of those that were not taken."""
        table = self._tables.klines
        requests = [{"PutRequest": {"Item": item}} for item in items]
        answer = self._connection.ask("batch_write_item", table, RequestItems={table: requests})
        return {_key(each["PutRequest"]["Item"]) for each in answer.get("UnprocessedItems", {}).get(table, ())}

    def _insist(self, deadline_ms: int, operation: str, table: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.insist(
            lambda: self._connection.ask(operation, table, TableName=table, **parameters), deadline_ms
        )
        return answer


def _key(item: Item) -> _Key:
    return item["symbol"]["S"], item["kline_key"]["S"]


def _fitting(what: Kline | Trade, refused: dict[Kline | Trade, str], make: Callable[[], Item]) -> Item | None:
    """Return the item that `make` makes, None where DynamoDB can never keep it: then `refused` says why."""
    try:
        item = make()
    except UnfitItem as error:
        refused[what] = str(error)
        return None
    size = item_bytes(item)
    if size > MAX_ITEM_BYTES:
        refused[what] = f"an item of {what.symbol} of {size} bytes, the limit is {MAX_ITEM_BYTES}"
        return None
    return item
