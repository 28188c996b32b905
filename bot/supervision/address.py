"""Decides how an actor is named: by what it is and what it is for, never by which incarnation runs now."""

from typing import NamedTuple


class Address(NamedTuple):
    """A name that outlives every incarnation: `Address("feed", "BTCUSDT")` reads `feed/BTCUSDT`.

    A tuple, since every `tell` looks one up: its hash and its comparison run in C.
    """

    kind: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}" if self.key else self.kind

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that reads as `text`. Raises ValueError if `text` is no address."""
        kind, slash, key = text.partition("/")
        if not kind or (slash and not key):
            raise ValueError(f"not an address: {text!r}")
        return cls(kind, key)
