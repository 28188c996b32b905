"""Decides what a caller can be told: each exception is named by what happened."""


class Fenced(Exception):
    """The incarnation's epoch is over: whatever it still tries is refused."""


class MailboxFull(Exception):
    """A must lane stayed full for the whole put timeout; the message was not taken."""


class ActorCrashed(Exception):
    """A handler ended by something that is no ordinary exception, such as SystemExit, or never ended."""


class ChaosKill(Exception):
    """The failure that `ActorSystem.kill` asked for."""


class KillRefused(Exception):
    """The actor is unknown, not running, or has a kill pending already."""


class NotRunning(Exception):
    """The name takes no messages: unknown, stopped or quarantined."""


def describe(error: BaseException | str) -> str:
    """Return the exception's type and message as one line."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return " ".join(text.split()).removesuffix(":")
