"""One broker for all tests of a run; which one it is, and what could not be tried on it, is said, never hidden."""

import os
import uuid
from collections.abc import Iterator

import pytest

from bot.config import KafkaSettings
from tests.support.kafka.brokers import Broker, NoBroker, choose
from tests.support.sessions import say


@pytest.fixture(scope="session")
def shared_broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    failure = ""
    try:
        broker = choose(tmp_path_factory.mktemp("kafka") / "broker")
    except NoBroker as error:
        failure = str(error)
    if failure:
        pytest.fail(failure, pytrace=False)
    about = f"{broker.title}, can {', '.join(sorted(broker.capabilities))}"
    if hasattr(broker, "resident_mb"):
        about += f"; started in {broker.start_s:.1f} s, {broker.resident_mb()} MB"
    say(request.config, f"kafka: {about}")
    yield broker
    broker.stop()


@pytest.fixture
def broker(request: pytest.FixtureRequest, shared_broker: Broker) -> Broker:
    """The run's broker; `pytest.mark.kafka("durable", ...)` says what a test needs of it."""
    needs = {need for mark in request.node.iter_markers("kafka") for need in mark.args}
    lacks = ", ".join(sorted(needs - shared_broker.capabilities))
    if lacks:
        reason = f"{shared_broker.title} cannot: {lacks}"
        # Whoever says which broker it must be, means it.
        if os.environ.get("CI") == "true" or os.environ.get("BULKHEAD_TEST_KAFKA_KIND"):
            pytest.fail(reason, pytrace=False)
        say(request.config, f"kafka: not run: {request.node.nodeid}: {reason}")
        pytest.skip(reason)
    if not shared_broker.is_up():  # a test that failed between its kill and its restart
        shared_broker.restart()
    return shared_broker


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    """Settings for topics that no other test has."""
    return KafkaSettings(bootstrap_servers=broker.servers, topic_prefix=f"t{uuid.uuid4().hex[:12]}.")
