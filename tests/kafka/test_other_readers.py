"""Readers that are not ours: kcat, and the consumer that the documents show."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bot.config import KafkaSettings
from tests.kafka.entries import a_trade
from tests.kafka.streams import klines, make_topics, publish, publisher_of

pytestmark = pytest.mark.kafka()

CONSUMER = Path(__file__).parents[2] / "examples" / "kafka_consumer.py"


@pytest.fixture
def published(kafka: KafkaSettings) -> KafkaSettings:
    make_topics(kafka)
    publisher = publisher_of(kafka)
    publish(publisher, [*klines(8), a_trade()])
    publisher.close(5)
    return kafka


def kcat(settings: KafkaSettings, topic: str) -> list[str]:
    ended = subprocess.run(
        [
            "kcat",
            "-q",
            "-C",
            "-e",
            "-b",
            settings.bootstrap_servers,
            "-f",
            "%k|%h|%s\n",
            "-t",
            settings.topic_prefix + topic,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return sorted(ended.stdout.splitlines())


@pytest.mark.kafka("latest_offset")
def test_kcat_prints_klines_and_trades(published: KafkaSettings) -> None:
    if shutil.which("kcat") is None:
        reason = "kcat is not installed; on Debian: apt-get install kcat"
        if os.environ.get("BULKHEAD_TEST_KAFKA_KIND"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    lines = kcat(published, "KafkaStreams")
    assert len(lines) == 8
    key, headers, value = lines[0].split("|")
    assert key == "BTCUSDT"
    assert headers.startswith("type=Kline,schema=1,mode=paper")
    kline = json.loads(value)
    assert (kline["ticker"], kline["close"], kline["is_closed"]) == ("BTCUSDT", "49710.04000000", True)
    (trade,) = kcat(published, "trades")
    key, headers, value = trade.split("|")
    assert (key, headers) == ("BTCUSDT", "type=Trade,schema=1,mode=paper")
    assert json.loads(value)["client_order_id"] == a_trade().client_order_id


def test_the_documented_consumer_prints_klines_and_trades(published: KafkaSettings) -> None:
    text = CONSUMER.read_text("utf-8")
    code = [line for line in re.sub(r'^""".*?"""', "", text, flags=re.S).splitlines() if line.strip()]
    assert len(code) <= 12, "ten lines are promised"
    assert "bot" not in re.findall(r"(?:from|import) (\w+)", text), "it needs nothing of the bot"
    consumer = subprocess.Popen(
        [
            *(sys.executable, "-u", CONSUMER, published.bootstrap_servers),
            *(published.topic_prefix + name for name in ("KafkaStreams", "trades")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert consumer.stdout is not None
        lines = [consumer.stdout.readline() for _ in range(9)]
    finally:
        consumer.terminate()
        consumer.wait(20)
        consumer.stdout.close()  # type: ignore[union-attr]
    assert sum(line.startswith("Kline ") for line in lines) == 8
    assert sum(line.startswith("Trade ") and '"quote_quantity":"999.6689044"' in line for line in lines) == 1
