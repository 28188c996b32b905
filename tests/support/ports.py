"""Ports that are named before anybody listens on them: for servers that are told theirs, or that come back on it."""

import itertools
import os
import random
import socket
from collections.abc import Iterator


def _candidates() -> Iterator[int]:
    """All ports of this process, in a circle, so that none is given out again while its first owner is still to come.

    They lie outside the range that outgoing connections and port 0 are served from: one inside it can be taken while
    its server is down, even by a client that tries to reach it, which then connects to itself. Each worker of a test
    run has ports of its own.
    """
    ports = range(20_000, 32_000)
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        ports = ports[int(worker.removeprefix("gw")) % 8 :: 8]
    start = random.SystemRandom().randrange(len(ports))
    return itertools.cycle((*ports[start:], *ports[:start]))


_left = _candidates()


def unused_port() -> int:
    """A port on which nobody listens, and which nobody else is given."""
    for port in itertools.islice(_left, 1_000):
        with socket.socket() as probe:
            # As servers do: what is left of connections of the last one is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port between 20000 and 32000 on 127.0.0.1")
