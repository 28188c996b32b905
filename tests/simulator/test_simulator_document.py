"""What docs/simulator.md shows works: its lines, its examples as programs; and it leaves no path, fault or flag out."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.simulator.faults import KINDS
from tests.simulator.support import LiveClient, running

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/simulator.md").read_text("utf-8")
LINES = [line for block in re.findall(r"```sim\n(.+?)```", DOCUMENT, re.S) for line in block.splitlines()]
EXPECTED = {
    "ccxt_session.py": [
        r"bought 0\.005 BTC for \d+",
        r"in a thin book EXPIRED with 0\.0\d+ of 0\.05",
        r"limited: \d+ s to wait; (RateLimitExceeded|DDoSProtection)",
        r"no reply, and yet closed 0\.001",
        r"left: 0\.0\d+ BTC",
    ],
    "python_binance_session.py": [
        r"may withdraw: False",
        r"FILLED 0\.10000000 ETH for \d+",
        r"refused: -1013 Filter failure: LOT_SIZE",
        r"paused: Market is closed\.",
        r"commission in \{'BNB'\}",
        r"after a reset of the testnet 0 orders",
    ],
}


@pytest.fixture(scope="module")
def client() -> Iterator[LiveClient]:
    with running() as live:
        yield live


@pytest.mark.parametrize("line", LINES)
def test_every_line_works_as_it_stands(client: LiveClient, line: str) -> None:
    path, _, body = line.partition(" ")
    answer = client._send("POST", path, "", body, {})
    assert (answer.status, answer.json) == (200, {})


def test_every_fault_and_path_is_there(client: LiveClient) -> None:
    shown = {json.loads(line.partition(" ")[2]).get("kind") for line in LINES}
    assert set(KINDS) <= shown
    table = set(re.findall(r"`([a-z0-9_]+)`", DOCUMENT[DOCUMENT.index("| kind |") :]))
    assert set(KINDS) <= table
    paths = re.findall(r"(?:GET|POST) /sim/[a-z]+", client.get("/sim/nothing").json)
    assert len(paths) == 10
    for path in paths:
        assert f"| `{path}` |" in DOCUMENT


def test_every_flag_is_there() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "bot.main", "simulator", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for flag in set(re.findall(r"--[a-z-]+", told)) - {"--help", "--host"}:
        assert flag in DOCUMENT, flag


@pytest.mark.parametrize("name", EXPECTED)
def test_the_examples_run(tmp_path: Path, name: str) -> None:
    with running(interval_ms=2000) as live:
        ends = live.endpoints
        place = tmp_path / "exchange.json"
        names = ("rest_url", "ws_url", "ws_api_url", "api_key", "api_secret")
        place.write_text(json.dumps({name: getattr(ends, name) for name in names}))
        done = subprocess.run(
            [sys.executable, f"examples/simulator/{name}", str(place)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(EXPECTED[name])
    for line, pattern in zip(lines, EXPECTED[name], strict=True):
        assert re.match(pattern, line), line
