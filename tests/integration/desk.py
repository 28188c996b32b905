"""A bot as a process on a simulated exchange in this process, whose prices are moved by hand: what trades is chosen."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bot.app.control import ControlError, ask
from bot.app.data_directory import DataDirectory
from bot.app.snapshot import stored_snapshot
from bot.simulator.market import PriceProcess
from bot.simulator.profiles import Profile
from tests.integration.processes import SYMBOLS, Program, command, told, wait_until
from tests.simulator.support import LiveClient, running

STEP = Decimal("0.04")
"""By so much a move of the price is a signal; what the market moves by itself is a tenth of that in a minute."""

SIGNALS_MISSED = 5
"""So often a move that was no signal is made anew."""

SIGNALS = {"BOT_BUY_DROP": "0.03", "BOT_SELL_RISE": "0.03", "BOT_BOT_ID": "bulkhead"}


class Desk:
    """One account; `bot` is the running one, if there is one. Klines come from `market`, often the same exchange."""

    def __init__(
        self, live: LiveClient, market: LiveClient, folder: Path, mode: str, settings: Mapping[str, str]
    ) -> None:
        self.live = live
        self.market = market
        self.folder = folder
        self.mode = mode
        self.data = folder / "data"
        self.settings = {
            "BOT_EXCHANGE__PROFILE": live.profile_name,
            "BOT_EXCHANGE__REST_URL": live.endpoints.rest_url,
            "BOT_EXCHANGE__WS_URL": live.endpoints.ws_url,
            "BOT_EXCHANGE__WS_API_URL": live.endpoints.ws_api_url,
            "BOT_API_KEY": live.key,
            "BOT_API_SECRET": live.secret,
            **SIGNALS,
            **settings,
        }
        self.bot: Program | None = None

    @contextmanager
    def running_bot(self, *flags: str, **settings: str) -> Iterator[Program]:
        """Run the bot; it has taken a kline of each symbol. Left in order it is stopped by SIGTERM and has exited 0."""
        arguments = ("run", "--mode", self.mode, *flags, "--data-dir", self.data)
        with Program(*arguments, cwd=self.folder, settings=self.settings | settings) as bot:
            self.bot = bot
            wait_until(lambda: self._is_taking(bot), 40, "klines of all symbols")
            yield bot
            bot.send(signal.SIGTERM)
            assert bot.ends(12) == 0, bot.said

    def _is_taking(self, bot: Program) -> bool:
        """Each trader has a price to compare the next one with, and the account's stream is open."""
        assert bot.is_running, bot.said
        try:
            symbols = self.status()["symbols"]
        except ControlError:
            return False
        # Of this process: a price of the last one is what the market was at before, and no move begins there.
        return all(symbols[symbol]["price"] is not None and symbols[symbol]["decisions"] for symbol in SYMBOLS)

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return command(*arguments, "--data-dir", self.data, cwd=self.folder, **self.settings)

    def ask(self, *arguments: object) -> str:
        """What a command prints; it must succeed."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def told(self, *arguments: object) -> Any:
        return told(*arguments, "--data-dir", self.data, cwd=self.folder)

    def status(self) -> Any:
        """What the running bot says of itself, by its control socket."""
        return ask(self.data / "control.sock", {"command": "status"})

    @property
    def book(self) -> dict[str, Decimal]:
        """Cash and positions as the bot has them, by asset."""
        wallet = stored_snapshot(DataDirectory(self.data)).wallet_json()
        positions = {symbol.removesuffix("USDT"): Decimal(held) for symbol, held in wallet["positions"].items()}
        return {"USDT": Decimal(wallet["cash"]), **positions}

    def control(self, path: str, /, **values: Any) -> None:
        answer = self.live.control(path, **values)
        assert answer.status == 200, answer.json

    def fault(self, kind: str, **values: Any) -> None:
        self.control("fault", kind=kind, **values)

    def price(self, symbol: str) -> Decimal:
        """The close that the bot compares the next one with. The exchange is not asked: it may be limiting us."""
        return Decimal(self.status()["symbols"][symbol]["price"])

    def total(self, asset: str) -> Decimal:
        held = self.live.state()["balances"].get(asset, {"free": "0", "locked": "0"})
        return Decimal(held["free"]) + Decimal(held["locked"])

    def orders(self, symbol: str | None = None) -> list[dict[str, Any]]:
        """The bot's orders that reached the exchange, refused ones too."""
        return [
            order
            for order in self.live.state()["orders"]
            if order["clientOrderId"].startswith("bh-") and symbol in (None, order["symbol"])
        ]

    def in_time(self, symbol: str) -> list[dict[str, Any]]:
        """Those that did not come too late for their window; such a one is sent again."""
        return [order for order in self.orders(symbol) if order.get("reject") != -1021]

    def move(self, symbol: str, share: Decimal, everywhere: bool = True) -> None:
        """Let the next kline of a symbol close by `share` off its price; `everywhere`: the market orders go to too."""
        tick = Decimal("0.00001") if symbol == "DOGEUSDT" else Decimal("0.01")
        price = str((self.price(symbol) * (1 + share)).quantize(tick))
        if everywhere and self.live is not self.market:
            self.control("price", symbol=symbol, price=price)
            wait_until(lambda: self._traded_at(symbol) == Decimal(price), 10, "the price there")
        assert self.market.control("price", symbol=symbol, price=price).status == 200

    def _traded_at(self, symbol: str) -> Decimal:
        return Decimal(self.live.get("/api/v3/ticker/price", symbol=symbol).json["price"])

    def signal(self, symbol: str, side: str, everywhere: bool = True) -> None:
        """Move the price so that the bot wants to trade."""
        self.move(symbol, -STEP if side == "BUY" else STEP, everywhere)

    def trades(self, symbol: str, side: str) -> dict[str, Any]:
        """Move the price so that the bot trades, and return its trade as logged."""
        return self._next("trade", symbol, side)

    def refuses(self, symbol: str, side: str, name: str, everywhere: bool = True) -> dict[str, Any]:
        """Move the price so that the bot would trade, and return the refusal as logged."""
        event = self._next("skipped", symbol, side, everywhere)
        assert event["name"] == name, event
        return event

    def _next(self, event: str, symbol: str, side: str, everywhere: bool = True) -> dict[str, Any]:
        assert self.bot is not None
        bot = self.bot

        def all_of() -> list[dict[str, Any]]:
            return [e for e in bot.events(event) if e["symbol"] == symbol]

        before = len(all_of())

        def signalled() -> bool:
            """Signal, and wait until that led to something; False where it was none."""
            decided = self._decided(symbol)
            self.signal(symbol, side, everywhere)
            came = f"{event}, {side} of {symbol}"
            wait_until(lambda: len(all_of()) > before or self._missed(symbol, decided), 15, came)
            return len(all_of()) > before

        try:
            assert any(signalled() for _ in range(SIGNALS_MISSED)), f"no move was a signal, {side} of {symbol}"
        except AssertionError as error:
            raise AssertionError(f"{error}; said: {bot.said[-3000:]}") from None
        found = all_of()[before]
        assert found["side"] in (side, "order"), found
        return found

    def stop_of(self, symbol: str) -> dict[str, Any]:
        """Wait until a symbol is stopped ("": all entries); return that as logged, once."""
        bot = self.bot
        assert bot is not None
        found = wait_until(
            lambda: [e for e in bot.events("SymbolStopped") if e["symbol"] == symbol], 25, f"{symbol or 'all'} stopped"
        )
        assert symbol in self.status()["stopped"]
        assert len(found) == 1
        return dict(found[0])

    def hears(self, text: str, timeout_s: float = 20, since: int = 0) -> str:
        assert self.bot is not None
        return self.bot.await_line(text, timeout_s, since)

    def _decided(self, symbol: str) -> Counter[str]:
        return Counter(self.status()["symbols"][symbol]["decisions"])

    def _missed(self, symbol: str, before: Counter[str]) -> bool:
        """Whether a move was no signal: on a busy machine the market itself had moved on before it was made."""
        since = self._decided(symbol) - before
        return since["HOLD"] >= 20 and since.total() == since["HOLD"]


@contextmanager
def without_jumps() -> Iterator[None]:
    """No jump of the market: one would take a hand's move for its own, or be a signal itself, now and then."""
    with patch.object(PriceProcess, "_jump", lambda process, price: price):
        yield


@contextmanager
def desk(
    folder: Path,
    profile: str | Profile = "com",
    mode: str = "testnet",
    seed: int = 5,
    data_from: str = "",
    **settings: str,
) -> Iterator[Desk]:
    """A simulated exchange and an account on it; no bot yet. `data_from`: the profile of another one for klines."""
    given = profile if isinstance(profile, Profile) else None
    name = profile.name if isinstance(profile, Profile) else profile
    with without_jumps(), running(given, name, interval_ms=150, seed=seed) as live:
        live.profile_name = name
        if not data_from:
            yield Desk(live, live, folder, mode, settings)
            return
        with running(profile_name=data_from, interval_ms=150, seed=seed) as market:
            places = {
                "BOT_MARKET_DATA__PROFILE": data_from,
                "BOT_MARKET_DATA__REST_URL": market.endpoints.rest_url,
                "BOT_MARKET_DATA__WS_URL": market.endpoints.ws_url,
            }
            yield Desk(live, market, folder, mode, {**places, **settings})
