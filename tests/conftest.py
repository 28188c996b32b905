"""Fixtures for every folder, and one run in several processes.

Which tests stay together, which start first, and what all of them have to say is decided here.
`scripts/test` runs with pytest-xdist; a run without it has one session and the order of the files.
"""

from collections.abc import Generator, Iterable
from contextlib import suppress
from decimal import localcontext
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from tests.aws.servers import aws_credentials, dynalite, moto_url, table_prefix
from tests.support.sessions import SAID

__all__ = ["aws_credentials", "dynalite", "moto_url", "table_prefix"]

TOGETHER = {
    "tests/kafka/": "kafka",
    "tests/aws/": "aws",
    "tests/contract/test_history.py": "aws",
}
"""Beginnings of tests' names: whose servers take seconds to start or to install, or are killed by tests."""

# Property tests are bounded by their number of examples, not by a clock: other work may share the machine. Each run
# has the same examples, so that none fails by chance; `--hypothesis-profile=default` looks for others.
hypothesis.settings.register_profile(
    "shared machine",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("shared machine")
# Nor may they depend on what else was loaded into the process: hypothesis draws constants of such modules too.
with suppress(ImportError, AttributeError):  # older ones draw none
    from hypothesis.internal.conjecture import providers

    _NONE = providers.Constants()
    providers._get_local_constants = lambda: _NONE


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SAID] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """ccxt sets the rounding of the thread that calls it: the next test shall round as if it ran alone."""
    with localcontext():
        return (yield)


class Scheduling(LoadFileScheduling):
    """The tests of a file go to one process, one after the other, and so do all that share a server."""

    def _split_scope(self, nodeid: str) -> str:
        own = super()._split_scope(nodeid)
        return next((name for beginning, name in TOGETHER.items() if nodeid.startswith(beginning)), own)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        # What takes long comes first, so that no worker ends long after the others.
        items.sort(key=_haste)


def _haste(item: pytest.Item) -> int:
    if item.nodeid.startswith(tuple(TOGETHER)):
        return 0
    return 1 if item.get_closest_marker("slow") or item.get_closest_marker("chaos") else 2


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["said"] = session.config.stash[SAID]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    said: Iterable[str] = getattr(node, "workeroutput", {}).get("said", ())
    node.config.stash[SAID].extend(said)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[SAID]:
        terminalreporter.write_line(line)
