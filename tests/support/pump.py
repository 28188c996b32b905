"""Real traders and the real portfolio of one process, without threads: each step hands one message to one actor.

A crash is what supervision makes of it: the epoch ends, its timers with it; the next incarnation starts, and takes the
message that was in hand first. Messages of the control lane go before the others.
"""

from collections import deque
from decimal import Decimal

from bot.actors import addresses
from bot.actors.cells import Cell, PortfolioMemory, TraderMemory
from bot.actors.portfolio import START_CASH_NOTE, PortfolioActor
from bot.actors.supervisor import LANES
from bot.actors.trader import TraderActor, TraderSettings
from bot.domain.decision import Decision
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway
from bot.messages import Taken
from bot.supervision import Lane
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, rules_of
from tests.support.doubles import Crash, CrashingJournal, Faults, MemoryStore, NoHalt, ScriptedExchange


class PumpContext(RecordingContext):
    """Hands messages on; every effect is a point at which the actor may die."""

    def __init__(self, address, clock, epoch, pump):
        super().__init__(address, clock, epoch)
        self._pump = pump

    def tell(self, to, message):
        self._pump.faults.point(f"tell {type(message).__name__}, before")
        taken = super().tell(to, message)
        self._pump.route(to, message)
        self._pump.faults.point(f"tell {type(message).__name__}, done")
        return taken

    def run_fenced(self, effect):
        self._pump.faults.point("fenced, before")
        result = super().run_fenced(effect)
        self._pump.faults.point("fenced, done")
        return result


class Node:
    def __init__(self, address, factory):
        self.address = address
        self.factory = factory
        self.epoch = 0
        self.context = None
        self.actor = None
        self.control = deque()
        self.others = deque()
        self.states = []


class Pump:
    def __init__(self, journal, *, symbols=("BTCUSDT",), cash="10000", sizing=None, mode="test", **settings):
        self.clock = ManualClock(NOON)
        self.faults = Faults()
        self.rules = {s: rules_of(s) for s in symbols}
        self.sizing = sizing or SizingParameters()
        self.exchange = ScriptedExchange(self.clock, self.rules, self.faults, self.sizing)
        self.raw_journal = journal
        self.journal = CrashingJournal(journal, self.faults)
        self.store = MemoryStore()
        self.halt = NoHalt()
        self.settings = {"mode": mode, "bot_id": "bot", "limits": self.sizing.limits or RiskLimits(), **settings}
        self.to_bridge, self.to_monitor, self.to_account = [], [], []
        self.stores_trades = True
        self.crashes = []
        self.delivered = []
        journal.set_note(START_CASH_NOTE, cash)
        self.nodes = {}
        self.start_process()

    def start_process(self):
        """What a process that starts finds: journal, store and exchange, nothing else."""
        for node in self.nodes.values():
            node.context.end_epoch()
        self.traders = {s: Cell(TraderMemory()) for s in self.rules}
        self.wallet = Cell(PortfolioMemory())
        self.gateway = OrderGateway(self.exchange, self.journal, self.halt)
        strategy = Scalping(Decimal("0.01"), Decimal("0.01"))

        def portfolio(context):
            return PortfolioActor(
                context,
                self.sizing,
                self.rules,
                self.journal,
                self.wallet,
                self.traders,
                self._last_counted,
                self._market,
                self.halt.halt,
            )

        def trader(symbol):
            return lambda context: TraderActor(
                context,
                TraderSettings(symbol=symbol, **self.settings),
                self.rules[symbol],
                strategy,
                self.gateway,
                self.journal,
                self.store,
                self.traders[symbol],
                self.clock.now_ms,
            )

        self.nodes = {addresses.PORTFOLIO: Node(addresses.PORTFOLIO, portfolio)}
        for symbol in self.rules:
            self.nodes[addresses.trader(symbol)] = Node(addresses.trader(symbol), trader(symbol))
        for node in self.nodes.values():
            self.restart(node.address)

    @staticmethod
    def _market(symbol):
        """No exchange is traded on."""

    def _last_counted(self, symbol):
        return next(iter(self.store.last_klines(symbol, 1)), None)

    def restart(self, address):
        """End the epoch and begin another, as often as it takes."""
        node = self.nodes[address]
        while True:
            if node.context is not None:
                node.context.end_epoch()
            node.epoch += 1
            node.context = PumpContext(address, self.clock, node.epoch, self)
            try:
                node.actor = node.factory(node.context)
                node.actor.started()
                return
            except Crash as crash:
                self.crashes.append(f"{address} in start: {crash}")

    def route(self, to, message):
        if to == addresses.BRIDGE:
            self.to_bridge.append(message)
            if isinstance(message, Taken):
                self.store.write([message.kline], [], [message.decision] if message.decision else [])
            elif isinstance(message, Decision):
                self.store.write([], [], [message])
            elif self.stores_trades:
                self.store.write([], [message])
        elif to == addresses.MONITOR:
            self.to_monitor.append(message)
        elif to == addresses.ACCOUNT:
            self.to_account.append(message)
        else:
            node = self.nodes[to]
            (node.control if LANES[type(message)] is Lane.CONTROL else node.others).append(message)

    def kline(self, kline):
        """A feed passes a kline on."""
        self.delivered.append(kline)
        self.route(addresses.trader(kline.symbol), kline)

    def step(self, address):
        """Let one actor take one message; False if it has none."""
        node = self.nodes[address]
        due, node.context.due = node.context.due, []
        lanes = [deque(due), node.control, node.others]
        lane = next((lane for lane in lanes if lane), None)
        if lane is None:
            return False
        message = lane.popleft()
        node.context.due = list(lanes[0])
        try:
            node.actor.handle(message)
        except Crash as crash:
            self.crashes.append(f"{address} in {type(message).__name__}: {crash}")
            timed = lane is lanes[0]
            self.restart(address)
            if not timed:
                node.control.appendleft(message)
        return True

    def run(self):
        while any(self.step(address) for address in self.nodes):
            pass

    def advance(self, ms, step_ms=500):
        """Let time pass, and all that falls due happen."""
        for _ in range(0, ms, step_ms):
            self.clock.advance(step_ms)
            self.run()

    def skipped(self):
        return [m.name for m in self.to_monitor if hasattr(m, "name")]
