"""Decides which listenKey opens the account's stream, and for how long. Source: Binance US, user data streams."""

import secrets
import string

_LETTERS = string.ascii_letters + string.digits


class ListenKeys:
    """The account's one listenKey at a time. Times in ms by the exchange's clock."""

    def __init__(self, life_ms: int) -> None:
        self._life_ms = life_ms
        self._key: str | None = None
        self._until = 0
        self._expired: list[str] = []
        self._given: set[str] = set()

    def create(self, now_ms: int) -> str:
        """Return the key in force, its validity extended, or a new one of 64 letters and digits."""
        if self.active(now_ms) is None:
            self._key = "".join(secrets.choice(_LETTERS) for _ in range(64))
            self._given.add(self._key)
        self._until = now_ms + self._life_ms
        assert self._key is not None
        return self._key

    def extend(self, key: str, now_ms: int) -> bool:
        """Extend `key`; False if it is not in force."""
        if self.active(now_ms) != key:
            return False
        self._until = now_ms + self._life_ms
        return True

    def close(self, key: str, now_ms: int) -> bool:
        """End `key`; False if it is not in force."""
        if self.active(now_ms) != key:
            return False
        self._key = None
        return True

    def active(self, now_ms: int) -> str | None:
        """Return the key in force."""
        if self._key is not None and now_ms >= self._until:
            self._expired.append(self._key)
            self._key = None
        return self._key

    def take_expired(self, now_ms: int) -> list[str]:
        """Return the keys that have run out, each once."""
        self.active(now_ms)
        expired, self._expired = self._expired, []
        return expired

    def was_given(self, name: str) -> bool:
        """Tell whether `name` is or was a listenKey."""
        return name in self._given
