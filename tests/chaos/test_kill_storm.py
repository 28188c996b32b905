"""Actors killed by the dozen while they trade, several at once and amid an order: the books are those of a quiet run.

The whole bot (BotSystem, mode testnet) trades in this process against the simulated exchange, a process of its own that
serves one kline a call. Nothing but the kills differs from a run that is left in peace, and from a backtest of the same
files: trades, cash, positions and stored klines have to be equal to the last decimal, and the exchange's own books have
no order twice. The long form, 2,000 kills over 20 seeds:

    BULKHEAD_STORM_KILLS=2000 BULKHEAD_STORM_SEEDS=20 pytest tests/chaos/test_kill_storm.py -s

`BULKHEAD_SEED=N` makes N the first seed (1 is), the following ones count up; each is printed. A seed fixes the
minutes, and who dies when and how; what the threads make of it within a millisecond it does not fix.

Ways to die: those of `actors kill` (raise, exit, hang, vanish: the next message is the last one), and those of
`sabotage.POINTS`: at the start, before and after a message is told, in a thread of the actor's own, within an order.
The latter are failures like any other, so here the policy forgives any number of them; back-off is short, a handler
counts as hung after half a second.

What is defined to be equal: a decision does not depend on how long an actor was away. `max_age` and `max_gap` are set
out of reach, the next kline is served when all that the last one caused is done. (With them a kline that waited more
than `max_age` moves `p` and trades nothing; that is tested elsewhere.) Who dies after the intent is stored and before
the order's bytes have left loses that decision: it is settled as never placed and not made up for. No actor is killed
between the two here; tests/chaos/test_process_storm.py does that.

The supervisor's death is the process's: `test_the_supervisor_s_death_ends_the_process_in_order` kills it in each of the
four ways amid the trading; the process has to end in order with status 1, and to go on where it was once it is started
again, as systemd or Docker would. BULKHEAD_STORM_SEEDS is how often each way.
"""

import dataclasses
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import structlog

import bot.app.system as app
from bot.actors import addresses
from bot.app.system import BotSystem
from bot.config import load_settings
from bot.messages import CatchUp, DiskSpace, Flush, Notice, ReplayLog, ResolveOrders, Suspect
from bot.supervision import ActorFailed, ActorQuarantined, ActorSystem, Address, Backoff, DeadLetter, KillRefused
from tests.chaos.sabotage import ORDER_POINTS, POINTS, Saboteur
from tests.chaos.step_storm import StepStorm
from tests.chaos.stepping import SteppedExchange, await_true, outcome_of, rules_of_book
from tests.chaos.tapes import make_tape
from tests.integration.books import assert_same_books
from tests.integration.processes import SYMBOLS, command, pause, told

KILLS = int(os.environ.get("BULKHEAD_STORM_KILLS", "60"))
SEEDS = int(os.environ.get("BULKHEAD_STORM_SEEDS", "2"))
FIRST_SEED = int(os.environ.get("BULKHEAD_SEED") or 1)
KILLS_A_SEED = -(-KILLS // SEEDS)
STEPS_A_KILL = 2.2
NAMES = (
    *(f"stream/{number}" for number in range(len(SYMBOLS))),
    *(f"feed/{symbol}" for symbol in SYMBOLS),
    *(f"trader/{symbol}" for symbol in SYMBOLS),
    *("portfolio", "bridge", "persistence", "monitor"),
)
HOWS = ("raise", "exit", "hang", "vanish")
QUIET_DEADLINE_MS, STORM_DEADLINE_MS = 30_000, 500
"""How long a handler may take: where nobody hangs, none is to be taken for hung on a machine that stands still."""
FORGIVING = {
    "max_restarts": 1_000_000,
    "poison_attempts": 1_000_000,
    "start_deadline_ms": 3_000,
    "backoff": Backoff(min_ms=20, max_ms=100, reset_after_ms=200),
}


class Blow(msgspec.Struct, frozen=True):
    """Who is to die how; `delay_ms` after the kline was served, None before. `point` is empty for `actors kill`."""

    name: str
    how: str
    point: str = ""
    delay_ms: float | None = None


def plan_blows(rng: random.Random, steps: int, kills: int) -> list[list[Blow]]:
    """Deal more blows than are wanted over the steps, since some meet nobody; none before all symbols have a kline."""
    plan: list[list[Blow]] = [[] for _ in range(steps)]
    left = round(kills * 1.2) + 3
    while left > 0:
        step = rng.randrange(len(SYMBOLS) * 2, steps - 3)
        at_once = min(left, rng.choice((1, 1, 1, 2, 3)))
        plan[step].extend(_a_blow(rng) for _ in range(at_once))
        left -= at_once
    return plan


def _a_blow(rng: random.Random) -> Blow:
    name = rng.choice(NAMES)
    delay_ms = rng.choice((None, None, 0, rng.uniform(0, 4), rng.uniform(0, 20)))
    if rng.random() < 0.6:
        return Blow(name, rng.choice(HOWS), delay_ms=delay_ms)
    points = [point for point in POINTS if point not in ORDER_POINTS]
    if name.startswith("trader"):
        points = [*ORDER_POINTS, *ORDER_POINTS, *points]
    if not name.startswith("stream"):
        points.remove("in a thread")
    point = rng.choice(points)
    return Blow(name, rng.choice(POINTS[point]), point, delay_ms)


class Run:
    """One bot on one stepped exchange, from its start to its end."""

    def __init__(self, folder: Path, exchange: SteppedExchange, deadline_ms: int) -> None:
        self.data = folder / "data"
        self.exchange = exchange
        self.saboteur: Saboteur | None = None
        self.failures: list[ActorFailed] = []
        self.other_events: list[object] = []
        self.refused = 0
        variables = {**exchange.settings, "BOT_HANDLER_DEADLINE_MS": str(deadline_ms)}
        settings = load_settings({"mode": "testnet", "data_dir": self.data}, environment=variables)
        self.bot = BotSystem(settings, allow_chaos=True)
        self.system: ActorSystem = self.bot._system
        self._listen()

    def _listen(self) -> None:
        heard = self.bot._on_event

        def hear(event: object) -> None:
            if isinstance(event, ActorFailed):
                self.failures.append(event)
            if isinstance(event, ActorQuarantined | DeadLetter):
                self.other_events.append(event)
            heard(event)

        self.system._supervision._on_event = hear

    def play(self, plan: list[list[Blow]] | None = None) -> int:
        """Step through the whole tape and stop; the number of klines."""
        try:
            self.bot.start()
            feeds = self.bot.memories.feeds
            await_true(lambda: all(cell.value.connected for cell in feeds.values()), 20, "feeds are connected")
            steps = 0
            while (served := self._step(plan[steps] if plan and steps < len(plan) else [])) is not None:
                steps += 1
                self._await_done(*served)
            self._flush_kills()
        finally:
            self.bot.stop()
        return steps

    def _step(self, blows: list[Blow]) -> tuple[str, int] | None:
        blows = sorted(blows, key=lambda blow: -1 if blow.delay_ms is None else blow.delay_ms)
        began = None
        served: tuple[str, int] | None = None
        for blow in blows:
            if blow.delay_ms is not None:
                if began is None:
                    served, began = self.exchange.next(), time.monotonic()
                pause(max(0.0, began + blow.delay_ms / 1000 - time.monotonic()))
            self._strike(blow)
        return self.exchange.next() if began is None else served

    def _strike(self, blow: Blow) -> None:
        if blow.point:
            assert self.saboteur is not None
            self.saboteur.arm(blow.name, blow.point, blow.how)
            if blow.point not in ("start", "started"):
                return
        # Who is to die while it starts has to die before.
        try:
            self.system.kill(Address.parse(blow.name), "exit" if blow.point else blow.how)
        except KillRefused:
            self.refused += 1

    def _await_done(self, symbol: str, close_time: int) -> None:
        """Wait until the trader has taken the kline and everything that came of it is done."""
        cell = self.bot.memories.traders[symbol]

        def is_taken() -> bool:
            memory = cell.value
            return (
                memory.last is not None
                and memory.last.event_time >= close_time
                and memory.pending is None
                and not memory.waiting
                and not memory.doubts
            )

        def is_done() -> bool:
            return is_taken() and self.system.wait_settled(1) and is_taken()

        await_true(is_done, 30, lambda: f"{symbol} {close_time} is done; {self._view()}")

    def _flush_kills(self) -> None:
        """Give every actor a harmless message, so that no kill is left for the stop; wait until all is stored."""
        if self.saboteur is not None:
            self.saboteur.disarm()
        nudges = [
            *((addresses.stream(number), Suspect(symbol)) for number, symbol in enumerate(SYMBOLS)),
            *((addresses.feed(symbol), CatchUp()) for symbol in SYMBOLS),
            *((addresses.trader(symbol), ResolveOrders()) for symbol in SYMBOLS),
            (addresses.PORTFOLIO, DiskSpace(10**12, is_low=False)),
            (addresses.BRIDGE, ReplayLog()),
            (addresses.PERSISTENCE, Flush()),
            (addresses.MONITOR, Notice("storm", "info", "over", 0)),
        ]
        self._await_rest()
        for address, message in nudges:
            self.system.tell(address, message)
        self._await_rest()

    def _await_rest(self) -> None:
        def is_at_rest() -> bool:
            snapshot = self.bot.snapshot()
            return (
                self.system.wait_settled(1)
                and snapshot.log_depth == 0
                and all(a.state == "running" and not a.mailbox.total and not a.busy_ms for a in snapshot.actors)
            )

        await_true(is_at_rest, 30, lambda: f"all actors are well and all is stored; {self._view()}")

    def _view(self) -> str:
        traders = {s: msgspec.structs.replace(c.value, waiting=()) for s, c in self.bot.memories.traders.items()}
        return f"{self.system.tree()}\n{traders}\nlast failures: {self.failures[-5:]}"


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """What the bot says goes to a file; threads take turns as in a real run; kills are found and forgiven fast."""
    real_specs, real_system = app.child_specs, ActorSystem

    def specs(parts):
        return tuple(dataclasses.replace(spec, **FORGIVING) for spec in real_specs(parts))

    monkeypatch.setattr(app, "child_specs", specs)
    monkeypatch.setattr(app, "ActorSystem", lambda *a, **kw: real_system(*a, check_ms=40, **kw))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    with (tmp_path / "bot.log").open("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        yield
        structlog.reset_defaults()
    sys.setswitchinterval(interval)


@pytest.mark.chaos
@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(120 + 10 * KILLS)
def test_a_storm_of_kills_changes_nothing(tmp_path, monkeypatch, record_property, caplog):
    caplog.set_level(100)
    counts: Counter[str] = Counter()
    ways: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    print(f"\nBULKHEAD_SEED={FIRST_SEED} BULKHEAD_STORM_KILLS={KILLS} BULKHEAD_STORM_SEEDS={SEEDS}")
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        with monkeypatch.context() as patches:
            found = one_storm(tmp_path / str(seed), seed, patches, ways)
        counts += found
        print(f"{time.monotonic() - began:6.1f} s  seed {seed}: {dict(found)}")
    print("kills by kind and way:")
    for (kind, way), count in sorted(ways.items()):
        print(f"  {kind:12} {way:28} {count}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    record_property("counts", dict(counts))
    assert counts["kills"] >= KILLS
    assert {kind for kind, _ in ways} == {name.partition("/")[0] for name in NAMES}
    assert set(HOWS) <= {way for _, way in ways}
    assert counts["orders"] >= KILLS // 4


def one_storm(folder, seed, patches, ways) -> Counter[str]:
    rng = random.Random(seed)
    minutes = round(KILLS_A_SEED * STEPS_A_KILL / len(SYMBOLS)) + 10
    tape = make_tape(folder / "klines", rng, minutes)
    steps = len(tape.steps)
    outcomes = []
    with SteppedExchange(folder / "quiet", tape) as exchange:
        quiet = Run(folder / "quiet", exchange, QUIET_DEADLINE_MS)
        assert quiet.play() == steps
        assert quiet.failures == []
        assert_same_books(exchange.state(), quiet.data, "testnet")
        outcomes.append(outcome_of(quiet.data, tape))
    with SteppedExchange(folder / "storm", tape) as exchange:
        saboteur = Saboteur(patches.setattr)
        storm = Run(folder / "storm", exchange, STORM_DEADLINE_MS)
        storm.saboteur = saboteur
        assert storm.play(plan_blows(rng, steps, KILLS_A_SEED)) == steps
        books = assert_same_books(exchange.state(), storm.data, "testnet")
        outcomes.append(outcome_of(storm.data, tape))
    expected = tape.expected(rules_of_book(storm.data))
    undisturbed, disturbed = outcomes
    assert undisturbed.trades == expected["trades"]
    assert disturbed.trades == undisturbed.trades
    assert disturbed.klines == undisturbed.klines
    assert sorted(disturbed.klines) == sorted(tape.steps)
    assert disturbed.lost == undisturbed.lost == set()
    assert storm.other_events == [], "nothing is given up"
    for data in (quiet.data, storm.data):
        wallet = told("wallet", "--data-dir", data, cwd=data)
        assert (wallet["cash"], wallet["positions"], wallet["equity"]) == (
            *(expected["cash"], expected["positions"], expected["equity"]),
        )
    ways.update((failure.name.partition("/")[0], way_of(failure)) for failure in storm.failures)
    return Counter(
        {
            "kills": len(storm.failures),
            "within an order": sum(point in ORDER_POINTS for _, point, _ in saboteur.struck),
            "kills refused": storm.refused,
            "effects refused": storm.system.refused_effects,
            "klines": steps,
            "orders": books["orders"],
            "fills": books["fills"],
            "lost": len(disturbed.lost),
        }
    )


def way_of(failure: ActorFailed) -> str:
    """Name the way in which an actor died; where it was sabotaged, the point too, unless it hung."""
    if failure.phase in ("hang", "vanish"):
        return failure.phase
    if failure.error.startswith("hung"):
        return "hang in its start"
    error, _, said = failure.error.partition(": ")
    how = "exit" if error == "SystemExit" else "raise"
    return how if said in ("raise", "chaos") else f"{how} {said.partition(' ')[2]}"


@pytest.mark.chaos
@pytest.mark.timeout(120 + 240 * SEEDS)
def test_the_supervisor_s_death_ends_the_process_in_order(tmp_path):
    print(f"\nBULKHEAD_SEED={FIRST_SEED} BULKHEAD_STORM_SEEDS={SEEDS}")
    for seed in range(FIRST_SEED, FIRST_SEED + max(1, SEEDS // 2)):
        rng = random.Random(seed)
        deaths = list(HOWS)
        rng.shuffle(deaths)
        tape = make_tape(tmp_path / f"{seed}-klines", rng, 70)
        with SteppedExchange(tmp_path / f"{seed}-exchange", tape) as exchange:
            storm = StepStorm(tmp_path / str(seed), tape, exchange, rng)
            storm.folder.mkdir()
            try:
                storm.launch()
                storm.await_recovery()
                for how in deaths:
                    die_trading(storm, how)
                    storm.recover()
                storm.play_the_rest()
                outcome, books = storm.outcome()
            finally:
                storm.clean_up()
        assert outcome.lost == set()
        assert len(storm.bots) == len(deaths) + 1
        print(f"seed {seed}: {len(deaths)} deaths, {storm.served} klines, {books['orders']} orders")


def die_trading(storm: StepStorm, how: str) -> None:
    """Kill the supervisor, and trade on until the bot ends: what is under way then is finished, or done after it."""
    for _ in range(storm.rng.randrange(3, 6)):
        assert storm.next()
        assert storm.await_done(stored=False), storm.bot.said
    ended = command("actors", "kill", "supervisor", "--how", how, "--data-dir", storm.data, cwd=storm.folder)
    assert ended.returncode == 0, ended.stderr
    began = time.monotonic()
    last = storm.served + 40  # a supervisor that hangs is found after five seconds
    while storm.bot.is_running and storm.served < last:
        assert storm.next(), "the tape is too short"
        storm.await_done(stored=False)
    assert storm.bot.ends(20) == 1, storm.bot.said
    assert any("the bot gave up: the supervisor" in line for line in storm.bot.errors), storm.bot.said
    print(f"  {how}: ended after {time.monotonic() - began:.1f} s")
