"""Which of many like lines are said, so that a storm of them drowns nothing else."""


class Throttle:
    """Lets the first `burst` of each `window_ms` through and counts the others. For one thread."""

    def __init__(self, burst: int, window_ms: int) -> None:
        self._burst = burst
        self._window_ms = window_ms
        self._began_ms: int | None = None
        self._admitted = 0
        self._held_back = 0

    def admit(self, now_ms: int) -> int | None:
        """Return how many were held back since the last one let through, None if this one is held back as well.

        `now_ms` never goes back.
        """
        if self._began_ms is None or now_ms - self._began_ms >= self._window_ms:
            self._began_ms, self._admitted = now_ms, 0
        if self._admitted >= self._burst:
            self._held_back += 1
            return None
        self._admitted += 1
        held_back, self._held_back = self._held_back, 0
        return held_back
