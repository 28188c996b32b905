"""What a person may ask of a running bot or tell it, through its control socket."""

from collections.abc import Callable, Mapping
from typing import Any

from bot.actors import addresses
from bot.app.control import ControlError
from bot.app.snapshot import Snapshot
from bot.messages import Halt
from bot.ports import ExchangeError, StoreError
from bot.reconciler import Reconciler, Undecided
from bot.supervision import ActorSystem, Address, KillRefused, NotRunning

Answer = Mapping[str, Any]


class Commands:
    """Answers requests, each with one JSON object. Raises ControlError, in one line, for what cannot be done.

    `flatten` begins to sell all, `stopped` says why which symbols are stopped; `reconciler` is None where there is no
    account at an exchange.
    """

    def __init__(
        self,
        actors: ActorSystem,
        snapshot: Callable[[], Snapshot],
        trouble: Callable[[], str | None],
        flatten: Callable[[], None],
        stopped: Callable[[], Mapping[str, str]],
        reconciler: Reconciler | None,
        allow_chaos: bool,
    ) -> None:
        self._actors = actors
        self._snapshot = snapshot
        self._trouble = trouble
        self._flatten = flatten
        self._stopped = stopped
        self._reconciler = reconciler
        self._allow_chaos = allow_chaos
        self._handlers: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "status": self._on_status,
            "dead-letters": self._on_dead_letters,
            "flatten": self._on_flatten,
            "halt": self._on_halt,
            "reconcile": self._on_reconcile,
            "kill": self._on_kill,
            "release": self._on_release,
        }

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """Do what is asked and return what came of it."""
        handler = self._handlers.get(request["command"])
        if handler is None:
            raise ControlError(f"unknown command {request['command']!r}; known are {', '.join(self._handlers)}")
        return handler(request)

    def _on_status(self, _: Mapping[str, Any]) -> Answer:
        return {**self._snapshot().as_json(), "trouble": self._trouble(), "dead_letters": self._letters()}

    def _letters(self) -> list[dict[str, Any]]:
        return [
            {
                "number": letter.number,
                "name": letter.name,
                "message_type": letter.message_type,
                "error": letter.error,
                "attempts": letter.attempts,
                "time": letter.time,
            }
            for letter in self._actors.dead_letters()
        ]

    def _on_dead_letters(self, request: Mapping[str, Any]) -> Answer:
        action, number = str(request["action"]), request.get("number")
        if action == "list":
            return {"dead_letters": self._letters()}
        act = {"retry": self._actors.retry_dead_letter, "drop": self._actors.drop_dead_letter}[action]
        if number is None or not act(int(number)):
            raise ControlError(
                f"there is no dead letter {number}, or its actor takes no messages; see: dead-letters list"
            )
        return {"done": f"dead letter {number}: {'told again' if action == 'retry' else 'dropped'}"}

    def _on_halt(self, request: Mapping[str, Any]) -> Answer:
        self._actors.tell(addresses.PORTFOLIO, Halt(" ".join(str(request.get("reason", "by a message")).split())))
        return {"done": "the portfolio is told to halt"}

    def _on_flatten(self, _: Mapping[str, Any]) -> Answer:
        self._flatten()
        symbols = self._snapshot().symbols
        held = [view.symbol for view in symbols if view.position.quantity > 0]
        doubted = [view.symbol for view in symbols if view.unknown]
        done = f"selling all of {', '.join(held)}" if held else "nothing is held"
        if doubted:
            done += f"; an order's fate is unknown yet of {', '.join(doubted)}, which is sold once it is known"
        return {"done": done}

    def _on_reconcile(self, request: Mapping[str, Any]) -> Answer:
        if self._reconciler is None:
            raise ControlError(f"mode {self._snapshot().mode} has no account at an exchange to compare with")
        try:
            if request.get("accept"):
                comparison = self._reconciler.accept(self._accepted(self._reconciler, request.get("symbol")))
            else:
                comparison = self._reconciler.compare()
        except Undecided as error:
            raise ControlError(f"not accepted: {error}") from None
        except (ExchangeError, StoreError) as error:
            raise ControlError(f"not compared: {error}") from None
        self._actors.tell(addresses.ACCOUNT, comparison.told)
        return comparison.as_json()

    def _accepted(self, reconciler: Reconciler, symbol: str | None) -> tuple[str, ...]:
        """Return the symbols whose differences a person accepts: stopped ones, or such as two comparisons agree on."""
        sure = {*self._stopped(), *(reconciler.compare().stops.keys() & reconciler.compare().stops.keys())}
        if not sure or (symbol is not None and symbol not in sure):
            there = ", ".join(one or "all entries" for one in sorted(sure)) or "none"
            raise ControlError(f"there is no difference to accept of {symbol or 'any symbol'}; differences: {there}")
        return tuple(sure) if symbol is None else (symbol,)

    def _on_kill(self, request: Mapping[str, Any]) -> Answer:
        if not self._allow_chaos:
            raise ControlError("this bot lets nobody kill its actors; start it with run --allow-chaos")
        name = str(request["name"])
        try:
            self._actors.kill(Address.parse(name), request["how"])
        except (KillRefused, NotRunning) as error:
            raise ControlError(str(error)) from None
        return {"done": f"the next message of {name} will kill it"}

    def _on_release(self, request: Mapping[str, Any]) -> Answer:
        name = str(request["name"])
        if not self._actors.release(Address.parse(name)):
            raise ControlError(f"{name} is not in quarantine; see: actors list")
        return {"done": f"{name} is released"}
