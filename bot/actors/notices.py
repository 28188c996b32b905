"""What an actor has to say to people: told to the monitor, under the actor's name; like lines held back."""

from bot.actors import addresses
from bot.domain.throttle import Throttle
from bot.messages import Notice
from bot.supervision import Context


class Notices:
    """The notices of one actor, or of one of its threads."""

    def __init__(self, context: Context, complaints: Throttle, level: str = "warning") -> None:
        """`complaints` says how many complaints are let through, `level` is theirs."""
        self._context = context
        self._complaints = complaints
        self._level = level

    def tell(self, level: str, text: str) -> None:
        """Say one line."""
        context = self._context
        context.tell(addresses.MONITOR, Notice(str(context.address), level, text, context.clock.now_ms()))

    def complain(self, text: str) -> bool:
        """Say it with how many were held back before it; False if it is held back itself."""
        held_back = self._complaints.admit(self._context.clock.monotonic_ms())
        if held_back is None:
            return False
        self.tell(self._level, f"{text} ({held_back} more before it)" if held_back else text)
        return True
