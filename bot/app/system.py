"""Builds a running bot from its settings: modes are a table, adapters are chosen here and nowhere else."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bot.actors import addresses
from bot.actors.account import AccountSettings
from bot.actors.feed import FeedSettings
from bot.actors.limits import ConnectionBudget
from bot.actors.persistence import PersistenceSettings, settle
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.stream import UPDATE_MS, StreamSettings, shards
from bot.actors.supervisor import LANES, AccountParts, LiveParts, Memories, Parts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.binance import (
    BinanceExchange,
    BinanceMarketHistory,
    BinanceMarketStream,
    Budgets,
)
from bot.adapters.local_log import LocalLog
from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.account import account_name, admit, note_name, spending
from bot.app.archiving import Archiving, change_of_store
from bot.app.commands import Commands
from bot.app.control import ControlServer
from bot.app.data_directory import DataDirectory, DataDirectoryError, Identity
from bot.app.health import Watchdog, stuck, trouble
from bot.app.keys import Keys, find_keys
from bot.app.market_watch import TICK_MS, MarketWatch
from bot.app.measuring import Measures
from bot.app.metering import Metering, peak_profit
from bot.app.places import EXCHANGE_TIMEOUTS_MS, WITH_ACCOUNT, Urls, exchange_name, places
from bot.app.publishing import BATCH_MS, Publishing, published_klines
from bot.app.reaching import Reaching
from bot.app.snapshot import BALANCES_NOTE, Snapshot, SymbolView, encode_balances, stored_views, take_snapshot
from bot.app.trading import (
    RULES_NOTE,
    decode_rules,
    encode_rules,
    one_quote_asset,
    run_of,
    sizing_parameters,
    strategy_of,
)
from bot.config import ConfigError, Mode, Settings
from bot.domain.filters import SymbolRules
from bot.domain.kline import INTERVALS_MS, Kline
from bot.domain.money import add, plain
from bot.domain.order import OrderIntent
from bot.domain.order_id import order_prefix
from bot.gateway import OrderGateway
from bot.messages import BalancesReported, BookOpened, Compared, Flatten, Notice, RulesChanged
from bot.ports import (
    Consequence,
    Exchange,
    ExchangeError,
    MarketStream,
    Outbox,
    StoreError,
)
from bot.reconciler import Reconciler
from bot.simulator import SimulatedExchange, SimulatorConfig
from bot.supervision import ActorSystem, SystemClock

if TYPE_CHECKING:
    from bot.adapters.kafka.market import KafkaMarketStream

STOP_DEADLINE_MS, EXCHANGE_STOP_DEADLINE_MS = 8_000, 9_500
"""Of the ten seconds that a stop may take: when actors, and then the embedded exchange, must have ended."""

NEWS_EVERY_MS = 10_000
"""How often balances are asked for; the clock is measured every few minutes."""

WARM_CONNECTIONS = 8
"""Kept open for orders; more are opened when that many symbols trade at one moment."""

YEAR_MS = 31_536_000_000

WALLET_NOTE = "wallet"


class BotSystem:
    """One bot: its data directory, its exchange, its actors. Started once, stopped once.

    `say` gets the lines that whoever starts it has to read: on the keys, a change of store, tables that are not
    reached, and in live on what may be spent.
    """

    def __init__(
        self, settings: Settings, allow_chaos: bool = False, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.settings = settings
        self._say = say
        self._allow_chaos = allow_chaos
        self.directory = DataDirectory(settings.directory)
        self.memories = Memories(settings.symbols)
        self.failed = threading.Event()
        self.failure = ""
        self._clock = SystemClock()
        self._simulator: SimulatedExchange | None = None
        self._store: SqliteStore | None = None
        self._journal: SqliteJournal | None = None
        self._control: ControlServer | None = None
        self._log = LocalLog(self.directory.path / "spool")
        self._stopping = threading.Event()
        self._reaching = Reaching(self._clock, self._stopping)
        self._idle: tuple[SymbolView, ...] = ()
        self._flattened: dict[str, int] = {}
        self._watch: MarketWatch | None = None
        self._publishing: Publishing | None = None
        self._published: KafkaMarketStream | None = None
        self._metering: Metering | None = None
        self._archiving: Archiving | None = None
        self._reconciler: Reconciler | None = None
        self._system = ActorSystem(self._clock, lanes=LANES, on_event=self._on_event, on_escalate=self._on_escalate)
        self._watchdog = Watchdog(lambda: self._system.beats, lambda: stuck(self._system.tree()), self.trouble)

    def start(self, cancelled: threading.Event | None = None) -> None:
        """Claim the directory, reach the exchange, start all actors; setting `cancelled` gives up waiting for it.

        Raises DataDirectoryError, ConfigError, StartError, StartCancelled, StoreError, ConfigurationRefused,
        KeysUnavailable, SimulatorError; nothing is left running then.
        """
        self._reaching = Reaching(self._clock, cancelled or self._stopping)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        settings, directory = self.settings, self.directory
        urls, keys = places(settings), _keys(settings)
        identity = Identity(
            mode=settings.mode.value,
            exchange="simulated" if settings.mode is Mode.DEMO else exchange_name(settings, urls),
            account="" if settings.mode in WITH_ACCOUNT else "paper",
            bot_id=settings.bot_id,
        )
        directory.lock()
        # Before anybody is asked whose account it is.
        directory.belong_to(identity)
        self._log.remove_leftovers()
        if settings.mode is Mode.DEMO:
            urls, keys = self._start_simulator()
        budgets, profile = Budgets(self._clock, directory), settings.exchange.profile
        rights = ""
        account: BinanceExchange | None = None
        if settings.mode is not Mode.PAPER:
            window = settings.exchange.recv_window_ms
            limits = (window, *EXCHANGE_TIMEOUTS_MS, profile, budgets.of(urls.trading_rest))
            account = BinanceExchange(urls.trading_rest, self._clock, keys.key, keys.secret, *limits)
        if account is not None and settings.mode in WITH_ACCOUNT:
            identity, rights = self._admitted(account, keys, identity, urls)
        self._store, self._journal = self._open_books(identity, keys)
        market = (settings.market_data.profile or profile, budgets.of(urls.market_rest))
        history = BinanceMarketHistory(urls.market_rest, self._clock, *EXCHANGE_TIMEOUTS_MS, *market)
        exchange: Exchange
        if account is None:
            rules = self._reaching.answer(lambda: history.rules(settings.symbols), urls.market_rest)
            exchange = PaperExchange(rules, sizing_parameters(settings), self._clock, self._next_trade_id())
        else:
            exchange = account
            rules = self._reaching.answer(lambda: exchange.rules(settings.symbols), urls.trading_rest)
        self._reaching.answer(history.now_ms, urls.market_rest)
        rules = self._with_rules_of_the_book(rules)
        quote_asset = one_quote_asset(rules)
        self._idle = stored_views(
            self._journal, self._store, {s: r for s, r in rules.items() if s not in settings.symbols}
        )
        self._journal.set_note(RULES_NOTE, encode_rules(rules))
        self._note_cash(exchange, quote_asset)
        self._store.record_run(run_of(settings, self._clock.now_ms()))
        if account is not None:
            self._watch_market(account, rules)
        self._measure(history, urls, budgets, has_account=account is not None)
        parts = self._parts(history, exchange, account, rules, urls)
        # Said when nothing is left to refuse, before anything is bought.
        if settings.mode in WITH_ACCOUNT:
            self._say(f"keys {keys.source}; {rights}")
        if settings.mode is Mode.LIVE:
            self._say_what_may_be_spent(urls, identity, quote_asset, rules)
        self._system.start(child_specs(parts))
        if directory.is_flattening():
            self._tell_flatten()
        threading.Thread(target=self._keep_asking, args=(history, account), name="exchange-news", daemon=True).start()
        if self._publishing is not None:
            attend = (self._stopping, self._system.tell, partial(self._book, identity))
            threading.Thread(target=self._publishing.attend, args=attend, name="publishing", daemon=True).start()
        self._control = ControlServer(directory.control_socket, self._commands().answer)
        self._control.start()
        self._watchdog.ready()

    def _start_simulator(self) -> tuple[Urls, Keys]:
        """Start the embedded exchange; return where it is and the keys to it."""
        config = SimulatorConfig(
            profile=self.settings.exchange.profile,
            symbols=self.settings.symbols,
            seed=self.settings.simulator_seed,
            data_dir=self.directory.exchange,
        )
        self._simulator = SimulatedExchange(config)
        ends = self._simulator.start()
        urls = Urls(ends.rest_url, ends.rest_url, ends.ws_url, ends.ws_api_url)
        return urls, Keys(ends.api_key, ends.api_secret, "embedded")

    def _open_books(self, identity: Identity, keys: Keys) -> tuple[SqliteStore, SqliteJournal]:
        """Open history, journal and outboxes, and make whole what a process that died left of them."""
        settings, directory = self.settings, self.directory
        lacks = "no" if not directory.orders.exists() else "an empty" if not directory.orders.stat().st_size else ""
        # Each is kept before the next is opened: `stop` closes what there is.
        store = self._store = SqliteStore(directory.history)
        if lacks and store.trade_count():
            raise DataDirectoryError(
                f"{directory.path} has trades in {directory.history.name} but {lacks} {directory.orders.name}, which "
                "says what is held; restore it or use another --data-dir"
            )
        journal = self._journal = SqliteJournal(directory.orders)
        formerly: frozenset[str] = frozenset()
        if settings.mode in WITH_ACCOUNT:
            formerly = note_name(journal, identity.account) | {account_name(None, keys.key)}
        if settings.kafka.bootstrap_servers:
            self._publishing = Publishing(settings, directory.outbox, self._clock, formerly)
            self._reaching.answer(partial(self._publishing.claim, self._book(identity, 0)), "Kafka")
        if change := change_of_store(settings, directory, store):
            self._say(change)
        if settings.store == "dynamodb":
            self._archiving = Archiving(settings, directory.archive, identity, self._clock, formerly)
            if not_yet := self._reaching.answer(self._archiving.claim, "DynamoDB"):
                self._say(not_yet)
        settle(store, self._outboxes, self._clock.now_ms())
        return store, journal

    def _watch_market(self, account: BinanceExchange, rules: Mapping[str, SymbolRules]) -> None:
        self._watch = MarketWatch(
            account,
            rules,
            self.settings.symbols,
            self.memories.account,
            self._clock,
            self._on_rules,
            sizing_parameters(self.settings).limits,
        )
        self._watch.tick()

    def _measure(self, history: BinanceMarketHistory, urls: Urls, budgets: Budgets, has_account: bool) -> None:
        """Have the metrics collected, if anybody is to have them."""
        if not (self.settings.cloudwatch.namespace or self.settings.metrics.port):
            return
        assert self._journal is not None
        hosts = {budgets.of(urls.market_rest): "market"}
        if has_account:
            hosts[budgets.of(urls.trading_rest)] = "trading"  # also where it is the same
        measures = Measures(
            self.snapshot,
            self.memories,
            self._clock,
            lambda: {name: budget.used_weight(history.estimated_now_ms()) for budget, name in hosts.items()},
            lambda: self._published.lags if self._published is not None else {},
            {view.symbol: view.price for view in self._idle if view.price is not None},
            peak_profit(self._journal),
        )
        self._metering = Metering(self.settings, measures, self._journal, self._clock)

    def _parts(
        self,
        history: BinanceMarketHistory,
        exchange: Exchange,
        account: BinanceExchange | None,
        rules: Mapping[str, SymbolRules],
        urls: Urls,
    ) -> Parts:
        """Return what the tree of actors is made of."""
        settings, directory = self.settings, self.directory
        assert self._journal is not None
        assert self._store is not None
        return Parts(
            feeds=tuple(FeedSettings(symbol, settings.interval) for symbol in settings.symbols),
            traders=tuple(self._trader_settings(symbol) for symbol in settings.symbols),
            persistence=self._persistence_settings(),
            rules=rules,
            strategy=strategy_of(settings),
            sizing=sizing_parameters(settings),
            mode=settings.mode.value,
            live=LiveParts(
                market=self._market(urls),
                streams=self._streams(),
                budget=ConnectionBudget(self._clock),
            ),
            # What was published is all there is to take; nothing is fetched before its turn.
            history=None if settings.market_data.source == "kafka" else history,
            gateway=OrderGateway(exchange, self._journal, directory, self._on_consequence, self._on_left),
            journal=self._journal,
            store=self._store,
            log=self._log,
            free_bytes=directory.free_bytes,
            now_ms=self._clock.now_ms,
            exchange_now_ms=history.estimated_now_ms,
            memories=self.memories,
            handler_deadline_ms=settings.handler_deadline_ms,
            on_quarantine=settings.on_quarantine,
            halt=self._halt,
            account=self._account_parts(account, urls, rules),
            market=self._watch,
            publishing=self._publishing.parts if self._publishing is not None else None,
            metrics=self._metering.parts if self._metering is not None else None,
            archiving=self._archiving.parts if self._archiving is not None else None,
        )

    def stop(self) -> tuple[str, ...]:
        """Stop feeds first and persistence last; return the actors that would not stop. Safe to call again."""
        began_ms = self._clock.monotonic_ms()
        self._stopping.set()
        self._watchdog.stopping()
        if self._control is not None:
            self._control.close()
        if self._metering is not None:
            self._metering.close()
            self._metering = None
        abandoned = self._system.stop(STOP_DEADLINE_MS)
        self._forget_flatten()
        if self._simulator is not None:
            self._simulator.stop((began_ms + EXCHANGE_STOP_DEADLINE_MS - self._clock.monotonic_ms()) / 1000)
        for database in (self._store, self._journal, self._publishing, self._archiving):
            if database is not None:
                database.close()
        self._publishing, self._archiving = None, None
        self._log.close()
        self.directory.release()
        return abandoned

    def snapshot(self) -> Snapshot:
        """Return what is to be seen of the bot now, without asking any actor; also after it was stopped."""
        return take_snapshot(
            self.settings.mode.value,
            self.settings.symbols,
            self.memories,
            self._system.tree(),
            self._log.depth,
            self._idle,
            self.directory.halted(),
            self.directory.stopped_symbols(),
            self._publishing.outbox.state() if self._publishing is not None else None,
            self._archiving.outbox.state() if self._archiving is not None else None,
        )

    def flatten(self) -> None:
        """Let no order leave but those that sell all that the bot holds; over restarts too."""
        self.directory.halt("while all is sold", flatten=True)
        self._tell_flatten()

    def _tell_flatten(self) -> None:
        self._flattened = {symbol: cell.value.flattened for symbol, cell in self.memories.traders.items()}
        for symbol in self.memories.traders:
            self._system.tell(addresses.trader(symbol), Flatten())

    def _forget_flatten(self) -> None:
        if self._flattened and self.is_flat:
            self._flattened = {}
            self.directory.flat()

    @property
    def is_flat(self) -> bool:
        """Whether the selling of all, if that was wished for, is done with."""
        traders = self.memories.traders
        return all(traders[symbol].value.flattened > before for symbol, before in self._flattened.items())

    def trouble(self) -> str | None:
        """Return in one line what is wrong with the running bot, None if it is well."""
        return trouble(self.snapshot(), self._clock.now_ms())

    def _commands(self) -> Commands:
        return Commands(
            self._system,
            self.snapshot,
            self.trouble,
            self.flatten,
            self.directory.stopped_symbols,
            self._reconciler,
            self._allow_chaos,
        )

    def _next_trade_id(self) -> int:
        assert self._journal is not None
        return 1 + max((fill.trade_id for entry in self._journal.settled() for fill in entry.fills), default=0)

    def _with_rules_of_the_book(self, rules: dict[str, SymbolRules]) -> dict[str, SymbolRules]:
        """Add the rules of symbols that this book traded before: their positions are part of the equity.

        Raises ConfigError if one that is not traded now has an order of unknown fate, which nobody would settle.
        """
        assert self._journal is not None
        for entry in self._journal.unresolved():
            if entry.intent.symbol not in rules:
                raise ConfigError(
                    f"symbols: {entry.intent.symbol} has an order of unknown fate in {self.directory.path}; "
                    "run with that symbol until the order is settled"
                )
        return {**decode_rules(self._journal.get_note(RULES_NOTE)), **rules}

    def _admitted(self, account: BinanceExchange, keys: Keys, identity: Identity, urls: Urls) -> tuple[Identity, str]:
        """Return whose book this is by the exchange's own words, and what the key may do, if that is what it should.

        Raises ConfigurationRefused, StartError, DataDirectoryError.
        """
        rights = self._reaching.answer(lambda: admit(account, self.settings.mode), urls.trading_rest)
        uid = self._reaching.answer(account.uid, urls.trading_rest)
        identity = msgspec.structs.replace(identity, account=account_name(uid, keys.key))
        self.directory.belong_to(identity, formerly=frozenset([account_name(None, keys.key)]))
        return identity, rights

    def _say_what_may_be_spent(
        self, urls: Urls, identity: Identity, quote_asset: str, rules: Mapping[str, SymbolRules]
    ) -> None:
        assert self._journal is not None
        assert self._store is not None
        equity = Decimal(self._journal.get_note(START_CASH_NOTE) or "0")
        for view in stored_views(self._journal, self._store, rules):
            equity = add(equity, view.profit)
        for line in spending(self.settings, urls.trading_rest, identity.account, quote_asset, equity):
            self._say(line)

    def _note_cash(self, exchange: Exchange, quote_asset: str) -> None:
        """Remember the wallet that the book began with, and what of it the bot may use by now: at most `capital`."""
        assert self._journal is not None
        wallet = self._journal.get_note(WALLET_NOTE)
        if wallet is None and self.settings.mode is Mode.PAPER:
            wallet = plain(self.settings.cash)
        elif wallet is None:
            wallet = plain(self._reaching.answer(lambda: exchange.free_balance(quote_asset), "the exchange"))
        self._journal.set_note(WALLET_NOTE, wallet)
        capital = self.settings.capital
        usable = Decimal(wallet) if capital is None else min(Decimal(wallet), capital)
        self._journal.set_note(START_CASH_NOTE, plain(usable))

    def _account_parts(
        self, account: BinanceExchange | None, urls: Urls, rules: Mapping[str, SymbolRules]
    ) -> AccountParts | None:
        if account is None:
            return None
        assert self._journal is not None
        settings = self.settings
        stream = account.stream(urls.ws_api, self._on_bad_frame, urls.listen_key_ws) if urls.ws_api else None
        prefix = order_prefix(settings.bot_id, settings.mode.value)
        self._reconciler = Reconciler(
            account,
            self._journal,
            rules,
            settings.symbols,
            prefix,
            Decimal(self._journal.get_note(START_CASH_NOTE) or "0"),
            settings.mode is Mode.TESTNET,
            self._clock.now_ms,
        )
        self._reconciler.read_ahead()
        return AccountParts(AccountSettings(prefix, settings.symbols), stream, self._compare, self.directory)

    def _compare(self) -> Compared:
        assert self._reconciler is not None
        try:
            comparison = self._reconciler.compare()
            self._note_balances(comparison.account.balances)
            return comparison.told
        except (ExchangeError, StoreError) as error:
            return Compared(error=str(error))

    def _trader_settings(self, symbol: str) -> TraderSettings:
        settings = self.settings
        return TraderSettings(
            symbol=symbol,
            mode=settings.mode.value,
            bot_id=settings.bot_id,
            limits=sizing_parameters(settings).limits,
            only_closed=settings.compare_on == "closed",
            max_gap_ms=settings.max_gap * INTERVALS_MS[settings.interval],
            max_age_ms=settings.max_age * 1000,
        )

    def _book(self, identity: Identity, now_ms: int) -> BookOpened:
        assert self._journal is not None
        start_cash = Decimal(self._journal.get_note(START_CASH_NOTE) or "0")
        rules = self._journal.get_note(RULES_NOTE) or "[]"
        return BookOpened(
            "book", identity.mode, identity.exchange, identity.account, identity.bot_id, start_cash, rules, now_ms
        )

    @property
    def _outboxes(self) -> list[Outbox]:
        """In the order in which persistence fills them."""
        return [each.outbox for each in (self._publishing, self._archiving) if each is not None]

    def _persistence_settings(self) -> PersistenceSettings:
        keep_ms = self.settings.keep_open_klines_days * 86_400_000
        if not self._outboxes:
            return PersistenceSettings(keep_open_klines_ms=keep_ms)
        return PersistenceSettings(keep_open_klines_ms=keep_ms, batch_ms=BATCH_MS)

    def _market(self, urls: Urls) -> MarketStream:
        if self.settings.market_data.source == "exchange":
            return BinanceMarketStream(urls.market_ws, self._on_bad_frame, self._clock)
        self._published = published_klines(self.settings, self._last_stored, self._on_bad_frame, self._clock)
        return self._published

    def _last_stored(self, symbol: str) -> Kline | None:
        assert self._store is not None
        klines = self._store.last_klines(symbol, 1)
        return klines[0] if klines else None

    def _streams(self) -> tuple[StreamSettings, ...]:
        settings = self.settings
        if settings.market_data.source == "kafka":
            # One member of the group; the client itself looks after its connections.
            forever = {"update_ms": YEAR_MS, "max_silence_ms": YEAR_MS, "life_ms": YEAR_MS}
            return (StreamSettings(0, settings.symbols, settings.interval, **forever),)
        return tuple(
            StreamSettings(
                number=number,
                symbols=symbols,
                interval=settings.interval,
                update_ms=min(UPDATE_MS, INTERVALS_MS[settings.interval]),
                max_silence_ms=settings.feed_silence * 1000,
                life_ms=settings.stream_life * 1000,
            )
            for number, symbols in enumerate(shards(settings.symbols))
        )

    def _keep_asking(self, history: BinanceMarketHistory, account: BinanceExchange | None) -> None:
        """Have clock, prices, rules and balances known, off the path of every kline and order."""
        assert self._journal is not None
        asked_ms = self._clock.monotonic_ms()  # the account was asked at the start
        while not self._stopping.wait(TICK_MS / 1000):
            self._forget_flatten()
            with suppress(StoreError):
                self._journal.fold()
            if self._watch is not None:
                self._watch.tick()
            if self._clock.monotonic_ms() - asked_ms < NEWS_EVERY_MS:
                continue
            asked_ms = self._clock.monotonic_ms()
            with suppress(ExchangeError, StoreError):
                history.now_ms()
                if account is not None:
                    account.warm(min(len(self.settings.symbols), WARM_CONNECTIONS))
                    self._note_balances(account.balances())

    def _note_balances(self, balances: Mapping[str, tuple[Decimal, Decimal]]) -> None:
        assert self._journal is not None
        self._journal.set_note(BALANCES_NOTE, encode_balances(balances))
        rows = tuple((asset, free, locked) for asset, (free, locked) in balances.items())
        self._system.tell(addresses.ACCOUNT, BalancesReported(rows, self._clock.now_ms()))

    def _on_rules(self, changed: Mapping[str, SymbolRules]) -> None:
        """The exchange changed trading rules: whoever uses them is told, and they are noted for the next reader."""
        assert self._journal is not None
        told = RulesChanged(tuple(changed.values()))
        for to in (addresses.PORTFOLIO, *(addresses.trader(symbol) for symbol in changed)):
            self._system.tell(to, told)
        known = decode_rules(self._journal.get_note(RULES_NOTE))
        self._journal.set_note(RULES_NOTE, encode_rules({**known, **changed}))
        text = f"the exchange changed the trading rules of {', '.join(changed)}"
        self._system.tell(addresses.MONITOR, Notice("exchange", "info", text, self._clock.now_ms()))

    def _on_left(self, intent: OrderIntent, is_of_kline: bool) -> None:
        self.memories.orders[intent.symbol].left(intent, is_of_kline)

    def _on_consequence(self, consequence: Consequence, symbol: str, detail: str) -> None:
        """Do what a refusal means beyond its order. Called by traders, so it asks nobody and waits for nothing."""
        if consequence is Consequence.REFRESH_RULES:
            if self._watch is not None:
                self._watch.read_rules_soon()
            return
        if consequence is Consequence.HALT:
            self._halt(f"since the exchange said: {detail}")
            text = f"halted, no order leaves until `resume`: the exchange said: {detail}"
        else:
            self._kept(lambda: self.directory.stop_symbol(symbol, f"the exchange said: {detail}"))
            text = f"{symbol} is stopped until `reconcile --accept {symbol}`: the exchange said: {detail}"
        self._system.tell(addresses.MONITOR, Notice("gateway", "error", text, self._clock.now_ms()))

    def _halt(self, reason: str) -> None:
        self._kept(lambda: self.directory.halt(reason))

    def _kept(self, write: Callable[[], None]) -> None:
        """Halt or stop; it holds at once, and where it cannot be written that is said."""
        try:
            write()
        except OSError as error:
            text = f"a halt or stop holds only until this process ends, {self.directory.path}: {error.strerror}"
            self._system.tell(addresses.MONITOR, Notice("gateway", "error", text, self._clock.now_ms()))

    def _on_event(self, event: object) -> None:
        self._system.tell(addresses.MONITOR, event)
        self._system.tell(addresses.BRIDGE, event)

    def _on_escalate(self, reason: str) -> None:
        self.failure = reason
        self.failed.set()

    def _on_bad_frame(self, line: str) -> None:
        self._system.tell(addresses.MONITOR, Notice("stream", "warning", line, self._clock.now_ms()))


def _keys(settings: Settings) -> Keys:
    """Return the account's keys; empty ones where the money is paper. Raises as `find_keys`."""
    return find_keys(settings) if settings.mode in WITH_ACCOUNT else Keys("", "", "not needed")
