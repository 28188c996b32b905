"""A bot as a process on a simulated exchange in this process, whose prices are moved by hand: what trades is chosen."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from bot.app.control import ControlError, ask
from bot.app.data_directory import DataDirectory
from bot.app.snapshot import stored_snapshot
from bot.simulator.profiles import Profile
from tests.integration.processes import SYMBOLS, Program, command, told, wait_until
from tests.simulator.support import LiveClient, running

STEP = Decimal("0.04")
"""By so much a move of the price is a signal; the market's own moves are of 1 % at most."""

SIGNALS = {"BOT_BUY_DROP": "0.03", "BOT_SELL_RISE": "0.03", "BOT_BOT_ID": "bulkhead"}


class Desk:
    """One account; `bot` is the running one, if there is one."""

    def __init__(self, live: LiveClient, folder: Path, mode: str, settings: Mapping[str, str]) -> None:
        self.live = live
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
        return all(symbols[symbol]["price"] is not None for symbol in SYMBOLS)

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

    def move(self, symbol: str, share: Decimal) -> None:
        """Let the next kline of a symbol close by `share` off its price."""
        tick = Decimal("0.00001") if symbol == "DOGEUSDT" else Decimal("0.01")
        price = (self.price(symbol) * (1 + share)).quantize(tick)
        self.control("price", symbol=symbol, price=str(price))

    def drop(self, symbol: str) -> None:
        self.move(symbol, -STEP)

    def rise(self, symbol: str) -> None:
        self.move(symbol, STEP)

    def decided(self, symbol: str) -> int:
        """How many signals of a symbol were decided so far: orders and refusals."""
        assert self.bot is not None
        return sum(e.get("symbol") == symbol for name in ("trade", "skipped") for e in self.bot.events(name))

    def trades(self, symbol: str, side: str) -> dict[str, Any]:
        """Move the price so that the bot trades, and wait for the trade."""
        assert self.bot is not None
        bot = self.bot
        before = len([e for e in bot.events("trade") if e["symbol"] == symbol])
        (self.drop if side == "BUY" else self.rise)(symbol)

        def traded() -> dict[str, Any] | None:
            mine = [e for e in bot.events("trade") if e["symbol"] == symbol][before:]
            return mine[0] if mine else None

        event: dict[str, Any] = wait_until(traded, 15, f"{side} of {symbol}; said: {bot.said[-3000:]}")
        assert event["side"] == side, event
        return event

    def refuses(self, symbol: str, side: str, name: str) -> dict[str, Any]:
        """Move the price so that the bot would trade, and wait for the refusal."""
        assert self.bot is not None
        bot = self.bot
        before = len([e for e in bot.events("skipped") if e["symbol"] == symbol])
        (self.drop if side == "BUY" else self.rise)(symbol)

        def refused() -> dict[str, Any] | None:
            mine = [e for e in bot.events("skipped") if e["symbol"] == symbol][before:]
            return mine[0] if mine else None

        event: dict[str, Any] = wait_until(refused, 15, f"refusal of {side} of {symbol}; said: {bot.said[-3000:]}")
        assert event["name"] == name, event
        return event

    def hears(self, text: str, timeout_s: float = 20, since: int = 0) -> str:
        assert self.bot is not None
        return self.bot.await_line(text, timeout_s, since)


@contextmanager
def desk(
    folder: Path, profile: str | Profile = "com", mode: str = "testnet", seed: int = 5, **settings: str
) -> Iterator[Desk]:
    """A simulated exchange and an account on it; no bot yet."""
    given = profile if isinstance(profile, Profile) else None
    name = profile.name if isinstance(profile, Profile) else profile
    with running(given, name, interval_ms=150, seed=seed) as live:
        live.profile_name = name
        yield Desk(live, folder, mode, settings)
