"""Fixtures for every folder, and one run in several processes.

Which tests stay together, which start first, and what all of them have to say is decided here.
`scripts/test` runs with pytest-xdist, `--dist loadgroup`; a run without it has one session and the order of the files.
"""

from collections.abc import Iterable
from typing import Any

import hypothesis
import pytest

from tests.aws.servers import aws_credentials, dynalite, moto_url, table_prefix
from tests.support.sessions import SAID

__all__ = ["aws_credentials", "dynalite", "moto_url", "table_prefix"]

SERVERS = {"shared_broker": "kafka", "moto_url": "aws", "dynalite": "aws"}
"""Of fixtures: servers that take seconds to start or to install, or that tests kill. Each is one process's alone."""

# Property tests are bounded by their number of examples, not by a clock: other work may share the machine.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SAID] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    # What takes long comes first, so that no worker ends long after the others.
    items.sort(key=lambda item: not _is_long(item))


def _group(item: pytest.Item) -> str:
    """Return the name of the tests that one process runs, one after the other, with `item`."""
    for fixture, group in SERVERS.items():
        if fixture in getattr(item, "fixturenames", ()):
            return group
    if "tests/aws/" in item.nodeid:
        return "aws"
    return item.nodeid if _is_long(item) and not _shares(item) else item.nodeid.partition("::")[0]


def _shares(item: pytest.Item) -> bool:
    """Whether what it needs was made once for its whole file."""
    info = getattr(item, "_fixtureinfo", None)
    known = info.name2fixturedefs.values() if info is not None else ()
    return any(definition.scope == "module" for definitions in known for definition in definitions)


def _is_long(item: pytest.Item) -> bool:
    return "tests/aws/" in item.nodeid or any(item.get_closest_marker(name) for name in ("slow", "chaos", "kafka"))


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
