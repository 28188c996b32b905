"""The supervisor against a simple model: messages, failures of every kind and time, in any order."""

import threading

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .. import ActorFailed, ActorQuarantined, ActorRestarted, Context, KillRefused
from .support import WAIT_S, A, Num, Scene, Scripted, fail, spec

MAX_RESTARTS = 3
PERIOD_MS = 20_000
ATTEMPTS = 2


class StandIn(Scripted):
    """Does what the actor proper does: only its class tells who serves."""


class SupervisorMachine(RuleBasedStateMachine):
    """One child whose messages are good or poison; the model knows what must be handled and when it is enough.

    Too many failures bring its stand-in, if it has one, and too many of that one, or of one without, shut the name.

    Every rule leaves the system at rest, so the model need not know of threads.
    """

    @initialize(has_stand_in=st.booleans())
    def begin(self, has_stand_in: bool) -> None:
        self.scene = Scene()
        self.scene.script.on_message[0] = fail(ValueError("poison"))
        self.hangs: list[threading.Event] = []
        self.scene.script.on_message[1] = self._hang_once
        self.scene.start(
            spec(
                self.scene.script,
                max_restarts=MAX_RESTARTS,
                period_ms=PERIOD_MS,
                poison_attempts=ATTEMPTS,
                handler_deadline_ms=2_000,
                stand_in=self._stand_in if has_stand_in else None,
            )
        )
        self.has_stand_in = has_stand_in
        self.in_care = False
        self.number = 10
        self.expected: list[int] = []
        self.failures: list[int] = []
        self.deaths = self.restarts = self.quarantines = 0
        self.letters = 0
        self.shut = False
        self.hung = False
        self.waiting: list[int] = []

    def _stand_in(self, context: Context) -> StandIn:
        self.scene.script.made.append(StandIn(context, self.scene.script))
        return self.scene.script.made[-1]  # type: ignore[return-value]

    def _hang_once(self, actor: Scripted) -> None:
        if not self.hung:
            self.hung = True
            self.hangs[-1].wait(WAIT_S * 3)

    def _now(self) -> int:
        return self.scene.clock.monotonic_ms()

    def _dies(self) -> None:
        """The model's policy: count the failure, quarantine if it is one too many."""
        now = self._now()
        self.deaths += 1
        self.failures = [t for t in self.failures if t > now - PERIOD_MS] + [now]
        enough = len(self.failures) > MAX_RESTARTS
        self.quarantines += enough
        if enough and self.has_stand_in and not self.in_care:
            self.in_care = True
            self.failures = []
        else:
            self.shut = enough
        self.restarts += not self.shut

    def _rest(self) -> None:
        recorder = self.scene.recorder
        if self.deaths:
            recorder.wait(ActorFailed, count=self.deaths)
        if self.restarts:
            recorder.wait(ActorRestarted, count=self.restarts)
        if self.quarantines:
            recorder.wait(ActorQuarantined, count=self.quarantines)
        self.scene.settle()

    @rule(count=st.integers(1, 20))
    def tell_good(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            taken = self.scene.system.tell(A, Num(self.number))
            assert taken is not self.shut
            if taken:
                self.expected.append(self.number)
        self._rest()

    @precondition(lambda self: not self.shut)
    @rule()
    def tell_poison(self) -> None:
        self.scene.tell(0)
        for attempt in range(1, ATTEMPTS + 1):
            self._dies()
            if attempt == ATTEMPTS:
                self.letters += 1
            elif self.shut:
                self.waiting.append(0)
                break
        self._rest()

    @precondition(lambda self: not self.shut)
    @rule(how=st.sampled_from(["raise", "exit", "vanish", "hang"]))
    def kill(self, how: str) -> None:
        self.scene.system.kill(A, how)
        self.number += 1
        self.scene.tell(self.number)
        self.expected.append(self.number)
        self.deaths += 1
        self.restarts += 1
        self.scene.recorder.wait_advancing(self.scene.clock, ActorFailed, count=self.deaths)
        self._rest()

    @precondition(lambda self: not self.shut)
    @rule()
    def hang(self) -> None:
        self.hangs.append(threading.Event())
        self.hung = False
        self.scene.tell(1)
        self.scene.recorder.wait_advancing(self.scene.clock, ActorFailed, count=self.deaths + 1)
        self._dies()
        if self.shut:
            self.waiting.append(1)
        else:
            self.expected.append(1)
        self._rest()

    # None of their sums, with the hangs between, comes near the period: when a hang is found is a matter of looks.
    @rule(delta=st.sampled_from([1, 6_000, PERIOD_MS]))
    def time_passes(self, delta: int) -> None:
        self.scene.clock.advance(delta)

    @precondition(lambda self: self.shut or self.in_care)
    @rule()
    def release(self) -> None:
        assert self.scene.system.release(A)
        self.shut = self.in_care = False
        self.failures = []
        self.restarts += 1
        waiting, self.waiting = self.waiting, []
        for n in waiting:
            if n == 1:
                self.expected.append(1)
                continue
            self._dies()  # the second try of the poison
            self.letters += 1
        self._rest()

    @precondition(lambda self: self.shut)
    @rule()
    def a_shut_child_cannot_be_killed(self) -> None:
        try:
            self.scene.system.kill(A, "raise")
        except KillRefused:
            return
        raise AssertionError("a shut child was killed")

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "scene"):
            return
        # A handler that hangs notes its message only when it is let go, after the last look.
        handled = [message.n for _, _, message in self.scene.script.log.entries]
        assert handled == self.expected
        assert len(self.scene.system.dead_letters()) == self.letters
        assert (self.scene.status().state == "quarantined") == (self.shut or self.in_care)
        assert isinstance(self.scene.script.made[-1], StandIn) == self.in_care
        assert self.scene.status().restarts == self.restarts
        assert self.scene.escalated == []

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            for event in self.hangs:
                event.set()
            assert self.scene.system.stop() == ()


TestSupervisor = SupervisorMachine.TestCase
TestSupervisor.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
