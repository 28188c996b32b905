"""A bot as a process that is killed and started again, in step with an exchange that serves one kline at a time."""

import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bot.app.control import ControlError, ask
from tests.chaos.stepping import Outcome, SteppedExchange, outcome_of, rules_of_book
from tests.chaos.tapes import Tape
from tests.integration.books import assert_same_books
from tests.integration.processes import Program, pause, told


class PointedBot(Program):
    """The bot with points, as a process."""

    def _spawn(self, program, cwd, variables):
        arguments = program[program.index("bot.main") + 1 :]
        return super()._spawn([sys.executable, "-m", "tests.chaos.pointed_bot", *arguments], cwd, variables)


class StepStorm:
    """One data directory, one stepped exchange, one bot after another."""

    def __init__(self, folder: Path, tape: Tape, exchange: SteppedExchange, rng: random.Random) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.tape = tape
        self.exchange = exchange
        self.rng = rng
        self.bots: list[PointedBot] = []
        self.served = 0
        self.kline: tuple[str, int] = ("", 0)
        self.recoveries: list[float] = []
        self.doubtful: list[float] = []

    @property
    def bot(self) -> PointedBot:
        return self.bots[-1]

    def ask(self, **request):
        """The bot's answer; None while it starts, and once it is dead."""
        try:
            return ask(self.data / "control.sock", request)
        except ControlError:
            return None

    def launch(self, point: str = "") -> None:
        settings = {**self.exchange.settings, "BOT_EXCHANGE__RECV_WINDOW_MS": "1000", "BULKHEAD_POINT": point}
        arguments = ("run", "--mode", "testnet", "--data-dir", self.data, "--allow-chaos")
        self.bots.append(PointedBot(*arguments, cwd=self.folder, settings=settings))

    def await_recovery(self) -> None:
        """Wait until every actor runs; a trader that asks about an order may take longer, and is told apart."""
        deadline = self.bot.began + 120
        running_at = None
        while True:
            assert self.bot.is_running, f"the bot ended by itself with {self.bot.ends()}:\n{self.bot.said}"
            status, now = self.ask(command="status"), time.monotonic()
            if status is not None and status["pid"] == self.bot.pid:
                states = {actor["name"]: actor["state"] for actor in status["actors"]}
                waiting = {name for name, state in states.items() if state != "running"}
                asking = {name for name in waiting if name.startswith("trader/") and states[name] == "recovering"}
                if running_at is None and waiting == asking and status["feeds_connected"]:
                    running_at = now
                    self.recoveries.append(now - self.bot.began)
                if running_at is not None and not waiting:
                    if now != running_at:
                        self.doubtful.append(now - self.bot.began)
                    return
            assert now < deadline, f"not all actors run: {status}\n{self.bot.said}"
            pause(0.005)

    def next(self) -> bool:
        """Have one kline served; False at the end."""
        kline = self.exchange.next()
        if kline is not None:
            self.kline = kline
            self.served += 1
        return kline is not None

    def await_done(self, stored: bool) -> bool:
        """Wait until the last kline is done, and stored if asked for; False if the bot died meanwhile."""
        symbol, close_time = self.kline
        deadline = time.monotonic() + 60
        while self.bot.is_running:
            answer = self.ask(command="done", symbol=symbol, close_time=close_time)
            if answer is not None and answer["stored" if stored else "done"]:
                return True
            assert time.monotonic() < deadline, f"{self.kline} is not done:\n{self.bot.said}"
            pause(0.002)
        return False

    def recover(self) -> None:
        """Start the bot anew and have it finish the last kline."""
        self.launch()
        self.await_recovery()
        assert self.await_done(stored=True), self.bot.said

    def play_the_rest(self) -> None:
        while self.next():
            assert self.await_done(stored=False), self.bot.said
        assert self.await_done(stored=True)
        self.bot.send(signal.SIGTERM)
        assert self.bot.ends(10) == 0

    def outcome(self) -> tuple[Outcome, Counter[str]]:
        """What the stopped bot's book says, once it was found equal to the exchange's and to what had to come of it."""
        data = self.data
        books = assert_same_books(self.exchange.state(), data, "testnet")
        outcome = outcome_of(data, self.tape)
        expected = self.tape.expected(rules_of_book(data), outcome.lost)
        assert outcome.rejected == []
        unheard_of = outcome.reasons.keys() - {"BUY", "SELL", "FIRST", *expected["skipped"]}
        assert not unheard_of, {name: outcome.reasons[name] for name in unheard_of}
        assert outcome.trades == expected["trades"], difference(outcome.trades, expected["trades"])
        assert sorted(outcome.klines) == sorted(self.tape.steps)
        wallet = told("wallet", "--data-dir", data, cwd=data)
        for amount in ("cash", "positions", "equity"):
            assert wallet[amount] == expected[amount]
        for bot in self.bots:
            assert not any("Traceback" in line for line in (*bot.lines, *bot.errors)), bot.said
        return outcome, books

    def clean_up(self) -> None:
        """Leave no process, and the logs of all."""
        for number, bot in enumerate(self.bots):
            bot.kill()
            (self.folder / f"bot-{number + 1}.log").write_text("".join([*bot.lines, *bot.errors]))


def difference(booked: list[dict[str, Any]], expected: list[dict[str, Any]]) -> str:
    """Where two lists of trades part, with what came before."""
    both = list(zip(booked, expected, strict=False))
    at = next((number for number, (one, other) in enumerate(both) if one != other), len(both))
    sides = {"booked": booked, "expected": expected}
    parts = (f"{name}: {trades[max(0, at - 1) : at + 2]}" for name, trades in sides.items())
    return f"of {len(booked)} and {len(expected)} trades number {at} differs\n" + "\n".join(parts)
