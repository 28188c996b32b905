"""What is to be said at the end of a test run, whichever process of it found it out."""

import pytest

SAID = pytest.StashKey[list[str]]()
"""Of a session: lines for the run's summary. `tests/conftest.py` makes it, and prints those of all workers."""


def say(config: pytest.Config, line: str) -> None:
    """Have `line` printed in the run's summary."""
    config.stash[SAID].append(line)
