"""The bot killed with SIGKILL, again and again, in the middle of whatever it does: its books stay the exchange's books.

Bot and simulated exchange are processes of their own; every restart is on the same data directory. The long form:

    BULKHEAD_KILLS=500 pytest tests/chaos/test_process_kill.py -s

`BULKHEAD_SEED=N` takes another market and other moments; it stands in the output.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from bot.adapters.sqlite import SqliteJournal
from bot.app.control import ControlError, ask
from bot.ports import StoreError
from tests.chaos.slow_road import SlowRoad
from tests.integration.books import assert_same_books
from tests.integration.processes import SYMBOLS, ExchangeProcess, Program, pause, wait_until

KILLS = int(os.environ.get("BULKHEAD_KILLS", "20"))
SEED = int(os.environ.get("BULKHEAD_SEED") or 1)
RECOVERS_WITHIN_S = 20
# Moves of a few hundredths of a percent trade already, so that an order is never far from a kill.
EAGER = {
    "BOT_BUY_DROP": "0.0004",
    "BOT_SELL_RISE": "0.0004",
    "BOT_FRACTION": "0.04",
    "BOT_EXCHANGE__RECV_WINDOW_MS": "1000",
}


class Trial:
    """One exchange, one data directory, and one bot after another on it."""

    def __init__(self, path: Path, exchange: ExchangeProcess, rng: random.Random, **settings: str) -> None:
        self.path = path
        self.settings = {**EAGER, **settings}
        self.data = path / "data"
        self.exchange = exchange
        self.rng = rng
        self.bots: list[Program] = []
        self.counts: Counter[str] = Counter()

    @property
    def bot(self) -> Program:
        return self.bots[-1]

    def launch(self) -> None:
        settings = {**self.exchange.settings, **self.settings}
        self.bots.append(Program("run", "--mode", "testnet", "--data-dir", self.data, cwd=self.path, settings=settings))

    def launch_and_recover(self) -> None:
        self.launch()
        self.await_klines()
        self.counts["recoveries"] += 1

    def await_klines(self) -> None:
        """Wait until every actor runs and every symbol has taken a kline that is newer than this call."""
        since = time.time_ns() // 1_000_000

        def is_well() -> bool:
            assert self.bot.is_running, f"the bot ended by itself:\n{self.bot.said}"
            try:
                status = ask(self.data / "control.sock", {"command": "status"})
            except ControlError:
                return False
            views = status["symbols"]
            return (
                status["pid"] == self.bot.pid
                and all(actor["state"] == "running" for actor in status["actors"])
                and set(views) == set(SYMBOLS)
                and all((view["last_kline_ms"] or 0) > since for view in views.values())
            )

        wait_until(is_well, RECOVERS_WITHIN_S, "all actors running with klines")

    def await_order(self) -> None:
        """Wait until one more order has reached the exchange."""
        before = len(self.exchange.state()["orders"])
        wait_until(lambda: len(self.exchange.state()["orders"]) > before, 20, "one more order")

    def pause_up_to(self, seconds: float) -> None:
        pause(self.rng.uniform(0, seconds))

    def kill(self) -> None:
        self.bot.kill()
        self.counts["kills"] += 1
        self.counts["kills with an order in flight"] += bool(self.unresolved())

    def unresolved(self) -> list[str]:
        try:
            with SqliteJournal.read_only(self.data / "orders.db") as journal:
                return [entry.intent.client_order_id for entry in journal.unresolved()]
        except StoreError:  # killed before there was a journal
            assert not self.exchange.state()["orders"]
            return []


# Each brings a bot to the moment at which it is killed.


def at_any_time(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.pause_up_to(1.2)


def while_starting(trial: Trial) -> None:
    trial.launch()
    trial.pause_up_to(1.5)


def while_the_reply_is_held_back(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.exchange.fault("delay", ms=700, path="/api/v3/order", method="POST")
    trial.await_order()


def after_an_executed_order_without_a_reply(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.exchange.fault("order_executed_no_reply")
    trial.await_order()
    trial.pause_up_to(0.3)


def after_an_executed_order_with_an_error(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.exchange.fault("order_executed_5xx")
    trial.await_order()
    trial.pause_up_to(1.5)


def after_a_lost_order(trial: Trial) -> None:
    trial.launch_and_recover()
    heard = len(trial.bot.lines)
    trial.exchange.fault("order_lost_no_reply")
    trial.bot.await_line("unknown, asking the exchange", 20, since=heard)
    trial.pause_up_to(1.0)


def while_stopping(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.pause_up_to(0.5)
    trial.bot.send(signal.SIGTERM)
    trial.pause_up_to(0.1)


def after_the_exchange_came_back(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.pause_up_to(0.5)
    trial.exchange.kill()
    trial.counts["kills of the exchange"] += 1
    trial.pause_up_to(0.5)
    trial.exchange.start()
    trial.await_klines()
    trial.pause_up_to(0.5)


def together_with_the_exchange(trial: Trial) -> None:
    trial.launch_and_recover()
    trial.exchange.fault("delay", ms=700, path="/api/v3/order", method="POST")
    trial.await_order()
    trial.exchange.kill()
    trial.counts["kills of the exchange"] += 1


MOMENTS: tuple[Callable[[Trial], None], ...] = (
    at_any_time,
    at_any_time,
    while_starting,
    while_the_reply_is_held_back,
    after_an_executed_order_without_a_reply,
    at_any_time,
    after_a_lost_order,
    after_the_exchange_came_back,
    while_starting,
    while_stopping,
    after_an_executed_order_with_an_error,
    together_with_the_exchange,
)


@pytest.mark.chaos
@pytest.mark.timeout(120 + 15 * KILLS)
def test_books_survive_any_kill(tmp_path, record_property):
    rng = random.Random(SEED)
    moments = [MOMENTS[number % len(MOMENTS)] for number in range(KILLS)]
    rng.shuffle(moments)
    began = time.monotonic()
    print(f"\nBULKHEAD_SEED={SEED} BULKHEAD_KILLS={KILLS}")
    with ExchangeProcess(tmp_path / "exchange", SEED, 100) as exchange:
        trial = Trial(tmp_path, exchange, rng)
        try:
            for number, moment in enumerate(moments):
                print(f"{time.monotonic() - began:6.1f} s  kill {number + 1}: {moment.__name__}")
                moment(trial)
                trial.kill()
                if not exchange.is_running:
                    exchange.start()
                assert exchange.state()["reused_client_order_ids"] == 0, "an order was sent twice"
            trial.launch_and_recover()
            settle_and_stop(trial)
            trial.counts += assert_same_books(exchange.state(), trial.data, "testnet")
            assert_nothing_broke(trial)
        finally:
            for number, bot in enumerate(trial.bots):
                bot.kill()
                (tmp_path / f"bot-{number + 1}.log").write_text("".join([*bot.lines, *bot.errors]))
        trial.counts["seconds"] = round(time.monotonic() - began)
        print(", ".join(f"{count} {what}" for what, count in trial.counts.items()))
        record_property("counts", dict(trial.counts))
    # The test is worth something only if it met what it is about.
    assert trial.counts["kills"] == KILLS
    assert trial.counts["kills with an order in flight"] >= KILLS // 10
    assert trial.counts["orders"] >= 2 * KILLS
    assert trial.counts["kills of the exchange"] >= KILLS // 10


@pytest.mark.chaos
def test_an_order_still_on_its_way_is_waited_for(tmp_path):
    """The bot dies while its order travels, and asks for it before it arrives: "there is none" must not be believed."""
    with ExchangeProcess(tmp_path / "exchange", SEED, 100) as exchange, SlowRoad(exchange.ends["rest_url"]) as road:
        # A window that does not end however slow this machine is.
        settings = {"BOT_EXCHANGE__REST_URL": road.url, "BOT_EXCHANGE__RECV_WINDOW_MS": "60000"}
        trial = Trial(tmp_path, exchange, random.Random(SEED), **settings)
        try:
            trial.launch_and_recover()
            road.hold_next_order()
            wait_until(lambda: road.held, 20, "an order on its way")
            trial.kill()
            # Of another symbol one may have been under way too, and is settled at once.
            assert road.held in trial.unresolved()
            trial.launch()
            wait_until(lambda: trial.unresolved() == [road.held], 20, "what is not held up is settled")
            asked = road.questions
            wait_until(lambda: road.questions >= asked + 2, 20, "the next bot asks for the order")
            assert trial.unresolved() == [road.held]
            road.let_go()
            trial.await_klines()
            settle_and_stop(trial)
        finally:
            road.let_go()
            for bot in trial.bots:
                bot.kill()
        state = exchange.state()
        assert_same_books(state, trial.data, "testnet")
        assert [order["status"] for order in state["orders"] if order["clientOrderId"] == road.held] == ["FILLED"]
        assert_nothing_broke(trial)


def settle_and_stop(trial: Trial) -> None:
    wait_until(lambda: not trial.unresolved(), 20, "the fate of every order is known")
    wait_until(lambda: knows_its_money(trial), 20, "cash and positions as the running bot knows them")
    trial.bot.send(signal.SIGTERM)
    assert trial.bot.ends(10) == 0


def knows_its_money(trial: Trial) -> bool:
    """Whether the actors themselves, not only what is stored, have what the exchange has; not while an order is out."""
    status = ask(trial.data / "control.sock", {"command": "status"})
    held = {asset: Decimal(balance["free"]) for asset, balance in trial.exchange.state()["balances"].items()}
    known = {symbol.removesuffix("USDT"): Decimal(view["position"]) for symbol, view in status["symbols"].items()}
    return {**known, "USDT": Decimal(status["cash"])} == held


def assert_nothing_broke(trial: Trial) -> None:
    """Neither a kill nor what the exchange did may have cost an actor its life, or a traceback."""
    for bot in trial.bots:
        assert not any("Traceback" in line for line in (*bot.lines, *bot.errors)), bot.said
        assert bot.events("ActorFailed") == []
        trial.counts["trades said"] += len(bot.events("trade"))
