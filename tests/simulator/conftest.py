"""Fixtures of the simulated exchange's tests."""

from collections.abc import Iterator

import pytest

from tests.simulator.support import Desk, LiveClient, running


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module")
def live() -> Iterator[LiveClient]:
    with running() as client:
        yield client
