"""Decides what the exchange is made of: its markets, its books, its limits and clock. No socket, no thread."""

import random
import secrets
import sqlite3
import string
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from bot.simulator.amounts import exact, round8, text8
from bot.simulator.books import Books
from bot.simulator.candles import HISTORY, KEPT, Candle, CandleSeries, StoredCandle, bucket
from bot.simulator.errors import ApiError, SimulatorError
from bot.simulator.faults import Faults
from bot.simulator.fees import Fees
from bot.simulator.journal import Journal
from bot.simulator.limits import OrderLimits, RequestLimits
from bot.simulator.listen_keys import ListenKeys
from bot.simulator.market import HistoryMaker, Market, PriceProcess, SyntheticMarket
from bot.simulator.profiles import PROFILES, Profile, SymbolRules, symbol_rules, usual_price
from bot.simulator.recorded import read_exchange_info
from bot.simulator.replay import ReplayMarket, Tape, read_tapes, shift_for
from bot.simulator.replies import order_reply, trade_reply
from bot.simulator.settings import DEFAULT_SYMBOLS, Rights, SimulatorConfig
from bot.simulator.user_events import AccountEvents
from bot.supervision import Clock

PUSH_MS = 2000  # between updates of all kline streams but 1s. Source: Binance, kline streams
SECOND_PUSH_MS = 1000
PRUNE_EVERY_MS = 3_600_000
_KEY_LETTERS = string.ascii_letters + string.digits
BASE_INTERVAL = "1m"
FIRST_TRADE_ID = 1000
CASH_ASSET = "USDT"  # or the first symbol's quote asset, where no symbol has this one

Closed = list[tuple[str, Candle]]


_counts = msgspec.json.Decoder(dict[str, int])
_texts = msgspec.json.Decoder(dict[str, str])


class Exchange:
    """The whole exchange as one object for one thread. Raises SimulatorError if it cannot be set up."""

    def __init__(self, config: SimulatorConfig, clock: Clock, profile: Profile | None = None) -> None:
        self.config = config
        self.clock = clock
        self.profile = _with_times(profile or _profile(config.profile), config)
        _check(config)
        tapes = {tape.symbol: tape for tape in read_tapes(config.files)}
        self._recorded = read_exchange_info(config.exchange_info) if config.exchange_info is not None else None
        self.filters = self._recorded.filters if self._recorded is not None else ()
        self.journal = Journal(config.data_dir)
        try:
            self._open(tapes)
        except sqlite3.Error as error:
            self.journal.close()
            fix = "free space, or take another directory"
            raise SimulatorError(f"{config.data_dir}: the books cannot be written ({error}); {fix}") from error
        except BaseException:
            self.journal.close()
            raise

    def _open(self, tapes: dict[str, Tape]) -> None:
        config, journal = self.config, self.journal
        kept_profile = journal.fact("profile")
        if kept_profile not in (None, self.profile.name):
            raise SimulatorError(
                f"{config.data_dir}: its books are of profile {kept_profile}, not {self.profile.name}; "
                "take another directory or that profile"
            )
        journal.set_fact("profile", self.profile.name)
        self.api_key = self._kept("api_key", _new_key)
        self.api_secret = self._kept("api_secret", _new_key)
        seed = str(config.seed) if config.seed is not None else self._kept("seed", lambda: secrets.token_hex(8))
        runs = int(journal.fact("runs") or 0)
        journal.set_fact("runs", str(runs + 1))
        played = msgspec.json.encode([[t.symbol, t.interval, t.row(0).open_time, len(t)] for t in tapes.values()])
        if journal.fact("played") not in (None, played.decode()):
            journal.forget_klines()
        journal.set_fact("played", played.decode())
        self.push_ms = config.interval_ms or PUSH_MS
        has_seconds = "1s" in self.profile.intervals and not tapes
        self.step_ms = config.interval_ms or (SECOND_PUSH_MS if has_seconds else PUSH_MS)
        self.requests: Counter[str] = Counter(_counts.decode(journal.fact("requests") or "{}"))
        self.faults = Faults()
        self.rights = Rights(enable_withdrawals=config.enable_withdrawals)
        self.created_ms = int(self._kept("created_ms", lambda: str(self.clock.now_ms())))
        self.request_limits = RequestLimits(self.profile, self.faults)
        self.order_limits = OrderLimits(self.profile)
        self.listen_keys = ListenKeys(self.profile.listen_key_life_ms)
        symbols = list(tapes)
        if not tapes or config.symbols != DEFAULT_SYMBOLS:
            symbols += [symbol for symbol in config.symbols if symbol not in tapes]
        self.markets: dict[str, Market] = {}
        self._anchors: dict[str, str] = _texts.decode(journal.fact("anchors") or "{}")
        self._positions: dict[str, int] = _counts.decode(journal.fact("positions") or "{}")
        self._wall_begin = self.clock.now_ms()
        self._market_begin = self._wall_begin
        self._prune_at = self._wall_begin
        shift_ms = 0
        if tapes:
            positions = {symbol: self._positions.get(symbol, 0) for symbol in tapes}
            shift_ms = shift_for(list(tapes.values()), positions, self._wall_begin, config.step)
        for symbol in symbols:
            tape = tapes.get(symbol)
            self.markets[symbol] = self._replayed(tape, shift_ms, seed) if tape else self._made_up(symbol, seed, runs)
        assets = [asset for market in self.markets.values() for asset in (market.rules.base, market.rules.quote)]
        quotes = [market.rules.quote for market in self.markets.values()]
        cash_asset = CASH_ASSET if CASH_ASSET in quotes else quotes[0]
        fees = Fees(self.profile.commission_rate, self.profile.commission_rate, self._price_in)
        self.books = Books(journal, fees, [*dict.fromkeys(assets)], cash_asset)
        self.account_events = AccountEvents(
            self.books, lambda symbol: self.markets[symbol].rules, self.now_ms, runs + 1
        )
        self.books.witness = self.account_events
        for symbol, market in self.markets.items():
            stored = int(journal.fact(f"trade_id:{symbol}") or 0)
            market.trade_id = max(stored, self.books.last_trade_id(symbol)) + FIRST_TRADE_ID
            if isinstance(market, SyntheticMarket) and not config.step:
                market.series.roll(self._market_begin)
        self._turn = 0
        self.flush()

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        value = self.journal.fact(name)
        if value is None:
            value = make()
            self.journal.set_fact(name, value)
        return value

    def _series(
        self, rules: SymbolRules, base: str, maker: HistoryMaker, first_open: int, price: Decimal, seconds: bool
    ) -> CandleSeries:
        rows = self.journal.klines(rules.symbol, base, KEPT)
        closed = [row.candle for row in rows if row.is_closed]
        is_new = not closed
        if is_new:
            closed = maker.older(base, first_open, price, HISTORY)
        series = CandleSeries(
            base,
            self.profile.intervals,
            closed,
            maker.older,
            maker.seconds if seconds else None,
            lambda interval: self.journal.klines(rules.symbol, interval, KEPT),
        )
        if is_new:
            for candle in closed:
                stored = StoredCandle(base, candle, True, candle.close_time)
                series.changes[base, candle.open_time] = stored
        elif not rows[-1].is_closed:
            series.resume(rows[-1].candle)
        return series

    def _rules(self, symbol: str, price: Decimal | None) -> SymbolRules:
        recorded = None
        if self._recorded is not None:
            recorded = self._recorded.symbols.get(symbol)
            if recorded is None:
                raise SimulatorError(f"{self.config.exchange_info}: symbol {symbol} is not in it")
        return symbol_rules(self.profile, symbol, price, self.config.step, recorded)

    def _made_up(self, symbol: str, seed: str, run: int) -> SyntheticMarket:
        rules = self._rules(symbol, None)
        anchor = Decimal(self._anchors.get(symbol, rules.start_price))
        maker = HistoryMaker(seed, rules, rules.tick, anchor)
        begin = self._market_begin
        if self.config.step:
            begin = bucket(begin - 1, BASE_INTERVAL)[1] + 1
        series = self._series(
            rules, BASE_INTERVAL, maker, bucket(begin, BASE_INTERVAL)[0], rules.start_price, not self.config.step
        )
        # Market time runs on where it was if a speed factor had brought it ahead of the wall.
        if series.current is not None:
            self._market_begin = max(self._market_begin, series.current.open_time)
        else:
            self._market_begin = max(self._market_begin, series.last_closed.close_time + 1)
        process = PriceProcess(
            rng=random.Random(f"{seed}:{symbol}:{run}"),
            push_ms=self.push_ms,
            anchor=float(anchor),
            last_push=float(series.last_close),
        )
        return SyntheticMarket(rules, series, process, f"{seed}:{run}", unlimited=self.config.step)

    def _replayed(self, tape: Tape, shift_ms: int, seed: str) -> ReplayMarket:
        position = self._positions.get(tape.symbol, 0)
        first = tape.row(0)
        rules = self._rules(tape.symbol, first.open)
        maker = HistoryMaker(seed, rules, tape.grid, first.open)
        begin = first.open_time + shift_ms
        series = self._series(rules, tape.interval, maker, begin, first.open, seconds=False)
        market = ReplayMarket(rules, series, tape, position, shift_ms, seed, self.config.step)
        if position:
            market.fill_pause()
        return market

    def now_ms(self) -> int:
        """Return the exchange's clock in ms: of signatures, orders and limits."""
        return self.clock.now_ms()

    def market_ms(self) -> int:
        """Return the market's time in ms: it runs `speed` times as fast from the start on."""
        return self._market_begin + int((self.clock.now_ms() - self._wall_begin) * self.config.speed)

    def wall_seconds_until(self, market_ms: int) -> float:
        """Return how long until the market's time is `market_ms`; negative if it is past."""
        return float((market_ms - self.market_ms()) / self.config.speed / 1000)

    def market(self, symbol: str) -> Market:
        """Return a symbol's market. Raises ApiError -1121."""
        market = self.markets.get(symbol)
        if market is None:
            raise ApiError(-1121, "Invalid symbol.")
        return market

    def _price_in(self, asset: str, quote: str) -> Decimal:
        """Return what one of `asset` costs in `quote`: where they trade here, the last price, else a usual one."""
        market = self.markets.get(asset + quote)
        return market.price if market is not None else usual_price(asset)

    @exact
    def average_price(self, market: Market, minutes: int) -> Decimal:
        """Return the reference price of the filters, as /avgPrice shows it. Source: Binance, filters, avgPriceMins."""
        return round8(market.series.average_price(minutes)) if minutes else market.price

    @exact
    def advance(self, symbol: str, is_push: bool) -> Closed:
        """Move one market to now, and fill the resting orders it reaches; return the candles that closed.

        A symbol that is not trading has no new prices: its candles only close.
        """
        market = self.markets[symbol]
        if not market.rules.is_trading:
            return market.close_only(self.market_ms())
        over = market.advance(self.market_ms(), is_push)
        self.match_resting(market)
        return over

    @exact
    def close_only(self, symbol: str) -> Closed:
        """Close the candles of one market whose time is over."""
        return self.markets[symbol].close_only(self.market_ms())

    @exact
    def next_step(self) -> tuple[str, str, Candle] | None:
        """Serve the next closed kline of an exchange moved by hand: (symbol, interval, candle); None at the end.

        Files: merged by close time, ties in the order in which the symbols were given. Made-up markets: in turn.
        """
        chosen: Market | None = None
        candle: Candle | None = None
        replayed = [market for market in self.markets.values() if isinstance(market, ReplayMarket)]
        if replayed:
            waiting = [(row.close_time, n) for n, m in enumerate(replayed) if (row := m.peek()) is not None]
            if waiting:
                player = replayed[min(waiting)[1]]
                chosen, candle = player, player.next_candle()
        else:
            names = list(self.markets)
            maker = self.markets[names[self._turn % len(names)]]
            self._turn += 1
            if isinstance(maker, SyntheticMarket):
                opened = max(maker.series.last_closed.close_time + 1, bucket(self._market_begin - 1, "1m")[1] + 1)
                chosen, candle = maker, maker.next_candle(opened, opened + maker.series.length_ms - 1)
        if chosen is None or candle is None:
            return None
        chosen.series.append_closed(candle)
        self.match_resting(chosen)
        self.flush()
        return chosen.rules.symbol, chosen.series.base, candle

    def match_resting(self, market: Market) -> None:
        if not market.rules.is_trading or not self.books.open_orders(market.rules.symbol):
            return
        now = self.now_ms()
        matched = self.books.match_resting(market.rules, market.depth(), now, market.trade_id + 1)
        market.trade_id += len(matched)
        for order, fill in matched:
            if order.executed == fill.quantity:
                self.order_limits.filled_as_maker(now)

    def flush(self) -> None:
        """Write the markets' state to the books. Raises sqlite3.Error."""
        now = self.clock.now_ms()
        for symbol, market in self.markets.items():
            if self.journal.is_durable:
                market.series.snapshot()
                self.journal.set_klines(symbol, market.series.changes.values())
                self.journal.set_fact(f"trade_id:{symbol}", str(market.trade_id))
                if now >= self._prune_at:
                    self._prune(symbol, market)
            market.series.changes.clear()
            if isinstance(market, ReplayMarket):
                self._positions[symbol] = market.position
            elif isinstance(market, SyntheticMarket):
                self._anchors[symbol] = str(Decimal(market.anchor))
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_MS
        self.journal.set_fact("positions", msgspec.json.encode(self._positions).decode())
        self.journal.set_fact("anchors", msgspec.json.encode(self._anchors).decode())
        self.note_requests()
        self.journal.commit()

    def _prune(self, symbol: str, market: Market) -> None:
        for interval in market.series.intervals:
            candles = market.series.kept(interval)
            if len(candles) >= KEPT:
                self.journal.prune_klines(symbol, interval, candles[-KEPT].open_time)

    def note_requests(self) -> None:
        """Let the request counts be written with the next commit."""
        self.journal.set_fact("requests", msgspec.json.encode(dict(self.requests)).decode())

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Let the symbol's next kline update close at `price`. Raises ApiError -1121."""
        self.market(symbol).forced = price

    def set_symbol(
        self,
        symbol: str,
        status: str | None = None,
        filters: tuple[Mapping[str, Any], ...] | None = None,
        **info: Any,
    ) -> None:
        """Change a symbol's status, filters or other fields of exchangeInfo from now on. Raises ApiError -1121."""
        market = self.market(symbol)
        market.rules = market.rules.changed(status, filters, **info)

    def reset(self) -> None:
        """Let all orders and trades vanish and ids and balances begin anew. Source: Binance, testnet, resets."""
        self.books.reset()
        for symbol, market in self.markets.items():
            market.trade_id = FIRST_TRADE_ID
            self.journal.set_fact(f"trade_id:{symbol}", str(market.trade_id))
        self.journal.commit()

    def state(self) -> dict[str, Any]:
        """Return orders, fills, balances and request counts. Source: contract, section 7, GET /sim/state."""
        orders = []
        for order in self.books.placements:
            shown = order_reply(order)
            if order.reject is not None:
                shown["reject"] = order.reject
            orders.append(shown)
        return {
            "orders": orders,
            "fills": [{**trade_reply(fill), "clientOrderId": fill.client_order_id} for fill in self.books.fills],
            "balances": {
                asset: {"free": text8(balance.free), "locked": text8(balance.locked)}
                for asset, balance in self.books.balances.items()
            },
            "requests": dict(self.requests),
            "reused_client_order_ids": self.books.reused_ids,
        }

    def close(self) -> None:
        """Flush and close the books."""
        try:
            self.flush()
        finally:
            self.journal.close()


def _profile(name: str) -> Profile:
    profile = PROFILES.get(name)
    if profile is None:
        raise SimulatorError(f"profile {name!r} is not one of {', '.join(PROFILES)}")
    return profile


def _with_times(profile: Profile, config: SimulatorConfig) -> Profile:
    """Return the profile with the times of websocket connections that were set, none of them for long."""
    names = ("connection_life_ms", "ping_every_ms", "pong_within_ms")
    chosen = {name: value for name in names if (value := getattr(config, name)) is not None}
    for name, value in chosen.items():
        if value < 1:
            raise SimulatorError(f"{name} must be at least 1, not {value}")
    return replace(profile, **chosen)


def _check(config: SimulatorConfig) -> None:
    if not config.speed.is_finite() or config.speed <= 0:
        raise SimulatorError(f"speed must be above 0, not {config.speed}")
    if config.interval_ms is not None and config.interval_ms < 1:
        raise SimulatorError(f"interval_ms must be at least 1, not {config.interval_ms}")
    if not 0 <= config.port <= 65_535:
        raise SimulatorError(f"port must be 0 to 65535, not {config.port}")
    if not config.symbols and not config.files:
        raise SimulatorError("no symbols given")
    for symbol in config.symbols:
        if not symbol.isascii() or not symbol.isalnum() or symbol != symbol.upper():
            raise SimulatorError(f"symbol {symbol!r} is not upper-case letters and digits")
    if len(set(config.symbols)) != len(config.symbols):
        raise SimulatorError("a symbol is given twice")


def _new_key() -> str:
    return "".join(secrets.choice(_KEY_LETTERS) for _ in range(64))
