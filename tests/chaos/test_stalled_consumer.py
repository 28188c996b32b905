"""Memory stays flat however long a consumer stalls, of each kind: real actors, messages at full speed.

The programs are those of benchmarks/memory.py, each a process of its own, so that nothing else counts. They fail by
themselves unless all that was accepted arrives whole and in order once the consumer goes on. The long form:

    BULKHEAD_MESSAGES=5000000 pytest tests/chaos/test_stalled_consumer.py -s
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MESSAGES = int(os.environ.get("BULKHEAD_MESSAGES", "200000"))
GROWTH_MB = 30
TELL_US = 50
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300 + MESSAGES // 5_000)]


def stall(consumer: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", consumer, "--messages", str(MESSAGES), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(f"\n{json.dumps(figures, indent=2)}")
    assert figures["growth_mb"] < GROWTH_MB
    assert figures["tell_us"]["p50"] < TELL_US
    assert figures["abandoned"] == []
    return figures


def test_a_trader_that_never_finishes_has_its_klines_refused_and_its_feed_ask_again():
    figures = stall("trader")
    assert figures["accepted"] == 1_001, "one in hand, and the stream lane"
    assert figures["refused"] == MESSAGES - 1_001
    assert figures["questions"] >= 10, "the feed tried again and again"
    assert figures["candles"] >= figures["streamed"] // 100 - 2, "nothing that was missed was left out"
    assert figures["failures"] == []


def test_what_a_stalled_store_does_not_take_is_on_disk():
    figures = stall("persistence")
    per_kline_mb = figures["spilled_mb"] / (MESSAGES - 25_000)
    assert 100 < per_kline_mb * 1_000_000 < 500
    assert figures["files"] > 1
    assert figures["files_left"] == 0
    behind, caught_up = figures["notices"]
    assert "far behind" in behind
    assert "caught up" in caught_up
    assert figures["failures"] == []


def test_who_may_drop_nothing_waits_for_room_and_then_fails():
    figures = stall("must")
    assert figures["accepted"] == 1_001
    assert figures["refused"] == MESSAGES - 1_001
    assert figures["courier_waited_ms"] >= 300
    assert all("MailboxFull" in failure and "courier" in failure for failure in figures["failures"])
    assert figures["failures"]
    (letter,) = figures["dead_letters"]
    assert "Trade" in letter
