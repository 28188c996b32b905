"""How long the machine itself stood still: what a test that holds the program to a time must not blame it for.

A process beside the test has a thread on each core that sleeps a little again and again, and tells when that took far
too long. What only the tested process waits for, as its own locks, it does not see.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SLEEP_S = 0.005
NOTED_S = 0.02
DISTURBED_S = 0.5
TRIES = 3
_LAG_S = 10.0


class Stalls:
    """Spans of time.monotonic, in seconds, in which a core stood still."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._seen_until: dict[str, float] = {}
        self._changed = threading.Condition()

    def add(self, line: str) -> None:
        core, began, ended = line.split()
        with self._changed:
            if float(ended) - float(began) > NOTED_S:
                self._spans.append((float(began), float(ended)))
            self._seen_until[core] = float(ended)
            self._changed.notify_all()

    def within(self, began: float, ended: float) -> float:
        """How many of the seconds between two moments a core stood still."""
        total = 0.0
        for first, last in self._all_until(ended):
            total += max(0.0, min(last, ended) - max(first, began))
            began = max(began, last)
        return total

    def await_sight(self, cores: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._seen_until) == cores, 60), "no watch on the cores"

    def _all_until(self, moment: float) -> list[tuple[float, float]]:
        with self._changed:
            self._changed.wait_for(lambda: min(self._seen_until.values()) >= moment, _LAG_S)
            return sorted(self._spans)


@contextmanager
def watched_stalls() -> Iterator[Stalls]:
    """Watch all cores within the block."""
    stalls = Stalls()
    cores = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.stalls", *map(str, cores)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout

    def read() -> None:
        for line in output:
            if line.endswith("\n"):  # the last one may be cut by the end of the process
                stalls.add(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        stalls.await_sight(len(cores))
        yield stalls
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        output.close()


def judged_undisturbed(scenario: Callable[[int], None]) -> None:
    """Run `scenario(number of the try)`; one that failed while the machine stood still is no verdict, so once more."""
    with watched_stalls() as stalls:
        for number in range(TRIES):
            began = time.monotonic()
            try:
                scenario(number)
            except AssertionError:
                if number == TRIES - 1 or stalls.within(began, time.monotonic()) < DISTURBED_S:
                    raise
            else:
                return


def _watch(core: int, lock: threading.Lock) -> None:
    os.sched_setaffinity(0, {core})
    last = told = time.monotonic()
    while True:
        time.sleep(SLEEP_S)
        now = time.monotonic()
        if now - last > NOTED_S or now - told > 1:
            told = now
            with lock:
                sys.stdout.write(f"{core} {last} {now}\n")
                sys.stdout.flush()
        last = now


if __name__ == "__main__":
    _lock = threading.Lock()
    for _core in map(int, sys.argv[1:]):
        threading.Thread(target=_watch, args=(_core, _lock), daemon=True).start()
    threading.Event().wait()
