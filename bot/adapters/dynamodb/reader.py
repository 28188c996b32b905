"""How klines and trades are read back from DynamoDB: in message order, a page at a time, without what has expired.

Source: DynamoDB, Query, and TTL (an expired item may be there for days).
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

import msgspec

from bot.adapters.dynamodb.connection import Connection
from bot.adapters.dynamodb.items import EXPIRES_AT, Item, decimal_of, kline_of, trade_of
from bot.adapters.dynamodb.tables import Tables
from bot.domain.kline import Kline, kline_key
from bot.domain.order import Trade
from bot.ports import StoreError
from bot.supervision import Clock

_Thing = TypeVar("_Thing")

_IN_MEMORY = 4_000
"""Klines held at a time where several symbols are read side by side."""
_PAGE = 1_000
"""Klines asked for at a time: about 300 KB."""
_UPDATES_A_CANDLE = 32
_LOWEST_TIME, _HIGHEST_TIME = 10**12, 10**13 - 1
_BEHIND_HASH, _BEHIND_ALL = chr(ord("#") + 1), "~"


class Reader:
    """Reads strongly consistent: what was written is there."""

    def __init__(self, connection: Connection, tables: Tables, clock: Clock) -> None:
        self._connection = connection
        self._tables = tables
        self._clock = clock

    def klines(self, symbol: str | None, interval: str | None, since: int | None, limit: int | None) -> Iterator[Kline]:
        """As `ports.History.klines`."""
        symbols = self._tables.symbols() if symbol is None else [symbol]
        if limit is not None:
            newest = [kline for each in symbols for kline in self._newest(each, interval, since, limit)]
            newest.sort(key=_message_order)
            return iter(newest[max(len(newest) - max(limit, 0), 0) :])
        page = min(max(_IN_MEMORY // max(len(symbols), 1), 50), _PAGE)
        return heapq.merge(*(self._oldest_first(each, interval, since, page) for each in symbols), key=_message_order)

    def last_klines(self, symbol: str, count: int, closed_only: bool) -> list[Kline]:
        """As `ports.History.last_klines`."""
        return self._newest(symbol, None, None, count, closed_only)

    def trades(self, symbol: str | None) -> Iterator[Trade]:
        """As `ports.History.trades`."""
        symbols = self._tables.symbols() if symbol is None else [symbol]
        table = self._tables.trades
        found = [self._decoded(table, trade_of, item) for each in symbols for item in self._query(table, each)]
        return iter(sorted(found, key=lambda trade: (trade.time, trade.client_order_id, trade.symbol)))

    def traded(self, symbol: str) -> dict[str, Decimal]:
        """As `ports.History.traded`."""
        wanted = {
            "ProjectionExpression": "#id, #quantity",
            "ExpressionAttributeNames": {"#id": "client_order_id", "#quantity": "quantity"},
        }
        items = self._query(self._tables.trades, symbol, **wanted)
        return dict(self._decoded(self._tables.trades, _quantity, item) for item in items)

    def trade(self, symbol: str, client_order_id: str) -> Trade | None:
        """As `ports.History.trade`."""
        key = {"symbol": {"S": symbol}, "client_order_id": {"S": client_order_id}}
        answer = self._ask("get_item", self._tables.trades, Key=key, ConsistentRead=True)
        return self._decoded(self._tables.trades, trade_of, answer["Item"]) if "Item" in answer else None

    def _oldest_first(self, symbol: str, interval: str | None, since: int | None, page: int) -> Iterator[Kline]:
        parts = [
            self._of_interval(symbol, each, since, page=page)
            for each in (self._intervals(symbol) if interval is None else [interval])
        ]
        return heapq.merge(*parts, key=_whole_order)

    def _newest(
        self, symbol: str, interval: str | None, since: int | None, count: int, closed_only: bool = False
    ) -> list[Kline]:
        if count <= 0:
            return []
        page = min(count * (_UPDATES_A_CANDLE if closed_only else 1), _PAGE)
        parts = [
            self._of_interval(symbol, each, since, page=page, newest_first=True, closed_only=closed_only)
            for each in (self._intervals(symbol) if interval is None else [interval])
        ]
        return list(islice(heapq.merge(*parts, key=_whole_order, reverse=True), count))[::-1]

    def _intervals(self, symbol: str) -> list[str]:
        """Return which intervals a symbol has: one look for each, at the first key behind the last one's."""
        found: list[str] = []
        behind = " "
        while True:
            first = next(self._pages(self._tables.klines, **_kline_keys(symbol, behind, _BEHIND_ALL), Limit=1))
            if not first:
                return found
            found.append(first[0]["kline_key"]["S"].partition("#")[0])
            behind = found[-1] + _BEHIND_HASH

    def _of_interval(
        self,
        symbol: str,
        interval: str,
        since: int | None,
        page: int,
        newest_first: bool = False,
        closed_only: bool = False,
    ) -> Iterator[Kline]:
        # All open_times have 13 digits, so keys sort as times; "closed" stands behind the digits of event_times.
        first = max(since or 0, _LOWEST_TIME)
        if first > _HIGHEST_TIME:
            return
        low, high = f"{interval}#{first}", f"{interval}#{_BEHIND_ALL}"
        condition = "(attribute_not_exists(#expires_at) OR #expires_at > :now)"
        query = _kline_keys(symbol, low, high)
        query["ExpressionAttributeNames"]["#expires_at"] = EXPIRES_AT
        query["ExpressionAttributeValues"][":now"] = {"N": str(self._clock.now_ms() // 1000)}
        if closed_only:
            condition += " AND #is_closed = :true"
            query["ExpressionAttributeNames"]["#is_closed"] = "is_closed"
            query["ExpressionAttributeValues"][":true"] = {"BOOL": True}
        pages = self._pages(
            self._tables.klines, **query, FilterExpression=condition, ScanIndexForward=not newest_first, Limit=page
        )
        yield from (self._decoded(self._tables.klines, kline_of, item) for items in pages for item in items)

    def _decoded(self, table: str, decode: Callable[[Item], _Thing], item: Item) -> _Thing:
        try:
            return decode(item)
        except (KeyError, ValueError, TypeError, ArithmeticError, msgspec.DecodeError) as error:
            key = " ".join(str(item.get(name, {}).get("S")) for name in ("symbol", "kline_key", "client_order_id"))
            raise StoreError(
                f"table {table} {self._connection.place} holds an item that this program did not write "
                f"({key.replace(' None', '')}: {type(error).__name__} {error}): delete it, or set another "
                "aws.table_prefix"
            ) from None

    def _query(self, table: str, symbol: str, **parameters: Any) -> Iterator[Item]:
        names = {**parameters.pop("ExpressionAttributeNames", {}), "#symbol": "symbol"}
        pages = self._pages(
            table,
            KeyConditionExpression="#symbol = :symbol",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={":symbol": {"S": symbol}},
            **parameters,
        )
        return (item for items in pages for item in items)

    def _pages(self, table: str, **query: Any) -> Iterator[Sequence[Item]]:
        start: dict[str, Any] = {}
        while True:
            answer = self._ask("query", table, **query, **start, ConsistentRead=True)
            yield answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _ask(self, operation: str, table: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.insist(
            lambda: self._connection.ask(operation, table, TableName=table, **parameters), self._connection.deadline()
        )
        return answer


def _kline_keys(symbol: str, low: str, high: str) -> dict[str, Any]:
    return {
        "KeyConditionExpression": "#symbol = :symbol AND #kline_key BETWEEN :low AND :high",
        "ExpressionAttributeNames": {"#symbol": "symbol", "#kline_key": "kline_key"},
        "ExpressionAttributeValues": {":symbol": {"S": symbol}, ":low": {"S": low}, ":high": {"S": high}},
    }


def _quantity(item: Item) -> tuple[str, Decimal]:
    return item["client_order_id"]["S"], decimal_of(item["quantity"])


def _message_order(kline: Kline) -> tuple[int, bool, int]:
    return kline.open_time, kline.is_closed, kline.event_time


def _whole_order(kline: Kline) -> tuple[int, bool, int, str]:
    return kline.open_time, kline.is_closed, kline.event_time, kline_key(kline)
