"""What Binance tells everybody: klines of the past, trading rules, prices, its clock.

Source: Binance, REST API.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NoReturn, TypeVar

import msgspec

from bot.adapters.binance.budget import Budget, Priority, limits_of, order_priority
from bot.adapters.binance.client import RestClient
from bot.adapters.binance.errors import BAD_SYMBOL, ILLEGAL_CHARACTERS, CallFailed, Reaction
from bot.adapters.binance.replies import AveragePriceReply, BookTickerReply, KlineRow, kline_of_row
from bot.domain.account import BookPrice
from bot.domain.exchange_info import FilterError, rules_from_exchange_info
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.order import Side
from bot.ports import ConfigurationRefused, ExchangeBusy, ExchangeUnavailable
from bot.supervision import Clock

T = TypeVar("T")

PAGE = 1000  # the most rows that klines, myTrades and allOrders give at once
SYMBOLS_A_REQUEST = 100  # so that the address stays far below what servers accept


class PublicCalls:
    """What needs no key; whoever has one can ask it too."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    def closed_klines(self, symbol: str, interval: str, start_time: int) -> list[Kline]:
        """Return all closed klines with open_time >= `start_time` (ms), oldest first.

        Raises ExchangeUnavailable, also where a row cannot be believed, and ConfigurationRefused.
        """
        klines: list[Kline] = []
        try:
            self._client.now_ms()  # whoever only reads history has its estimate measured here
            # Asked before the rows: a kline that ended after this may still have been open in its row.
            now = self._client.server_time()
            while True:
                params = {"symbol": symbol, "interval": interval, "startTime": str(start_time), "limit": str(PAGE)}
                rows = self._client.get("klines", params, list[KlineRow])
                for row in rows:
                    if row[0] < start_time:
                        raise ExchangeUnavailable(f"klines of {symbol} do not come in the order of their times")
                    start_time = row[0] + 1
                    if row[6] < now:
                        klines.append(kline_of_row(symbol, interval, row))
                if len(rows) < PAGE:
                    return klines
        except CallFailed as failed:
            fail_read(failed)

    def rules(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        """Return the symbols' trading rules.

        Raises ExchangeUnavailable, and ConfigurationRefused naming a symbol that the exchange does not have.
        """
        rules: dict[str, SymbolRules] = {}
        for first in range(0, len(symbols), SYMBOLS_A_REQUEST):
            rules.update(self._rules_of(symbols[first : first + SYMBOLS_A_REQUEST]))
        return rules

    def now_ms(self) -> int:
        """Return the exchange's clock, measured every few minutes. Raises ExchangeUnavailable, ConfigurationRefused."""
        try:
            return self._client.now_ms()
        except CallFailed as failed:
            fail_read(failed)

    def estimated_now_ms(self) -> int:
        """Return the exchange's clock as last measured, the machine's own before that. Never asks, never raises."""
        return self._client.estimate_ms()

    def warm(self, connections: int) -> None:
        """Have connections open before they are needed, and replace those that died. Raises ExchangeUnavailable."""
        try:
            self._client.warm(connections)
        except CallFailed as failed:
            fail_read(failed)

    def average_price(self, symbol: str) -> Decimal:
        """Return the average price of the last minutes, by which the notional of market orders is judged.

        Raises as the port says of reads.
        """
        return Decimal(self.read("avgPrice", {"symbol": symbol}, AveragePriceReply, signed=False).price)

    def book_prices(self, symbols: Sequence[str], waiting: Side | None = None) -> dict[str, BookPrice]:
        """Return the best bid and ask of each symbol; `waiting` is the side of an order that cannot do without.

        Raises as the port says of reads.
        """
        priority = Priority.REST if waiting is None else order_priority(waiting)
        prices: dict[str, BookPrice] = {}
        for first in range(0, len(symbols), SYMBOLS_A_REQUEST):
            some = list(symbols[first : first + SYMBOLS_A_REQUEST])
            params = {"symbols": msgspec.json.encode(some).decode()}
            rows = self.read("ticker/bookTicker", params, list[BookTickerReply], signed=False, priority=priority)
            for one in rows:
                prices[one.symbol] = BookPrice(one.symbol, Decimal(one.bidPrice), Decimal(one.askPrice))
        missing = [symbol for symbol in symbols if symbol not in prices]
        if missing:
            raise ExchangeUnavailable(f"bookTicker left out {', '.join(missing)}")
        return prices

    def read(
        self,
        path: str,
        params: Mapping[str, str],
        shape: type[T],
        signed: bool = True,
        priority: Priority = Priority.REST,
    ) -> T:
        """Return a reply. Raises as the port says of reads."""
        try:
            return self._client.get(path, params, shape, signed, priority)
        except CallFailed as failed:
            fail_read(failed)

    def _rules_of(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        try:
            info = self._client.get("exchangeInfo", {"symbols": msgspec.json.encode(list(symbols)).decode()}, dict)
        except CallFailed as failed:
            if failed.code not in (BAD_SYMBOL, ILLEGAL_CHARACTERS):
                fail_read(failed)
            if len(symbols) == 1:
                raise ConfigurationRefused(
                    f"{symbols[0]}: no such symbol at this exchange: mend `symbols` or exchange.profile"
                ) from None
            # The exchange refuses the whole list without a name: each alone tells which it was.
            return {symbol: rules for one in symbols for symbol, rules in self._rules_of([one]).items()}
        self._client.budget.learn(limits_of(info))
        try:
            rules = rules_from_exchange_info(info, symbols)
        except FilterError as error:
            raise ExchangeUnavailable(f"exchangeInfo: reply not understood: {error}") from None
        missing = [symbol for symbol in symbols if symbol not in rules]
        if missing:
            raise ExchangeUnavailable(f"exchangeInfo left out {', '.join(missing)}")
        return rules


class BinanceMarketHistory(PublicCalls):
    """Klines of the past, trading rules and the exchange's clock, without a key. Thread-safe.

    `rest_url` is scheme, host and port; ConfigurationRefused is raised if it is not. `budget` is shared by all who
    ask that host.
    """

    def __init__(
        self,
        rest_url: str,
        clock: Clock,
        connect_timeout_ms: int = 2000,
        read_timeout_ms: int = 5000,
        profile: str = "com",
        budget: Budget | None = None,
    ) -> None:
        timeouts = (connect_timeout_ms, read_timeout_ms)
        super().__init__(RestClient(rest_url, clock, "", "", 0, *timeouts, profile, budget))


def fail_read(failed: CallFailed) -> NoReturn:
    """Raise what the port says of a read that failed."""
    if failed.reaction is Reaction.HALT:
        raise ConfigurationRefused(str(failed)) from None
    raise (ExchangeBusy if failed.reaction is Reaction.WAIT else ExchangeUnavailable)(str(failed)) from None
