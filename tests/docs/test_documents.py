"""What the documents show really works: commands, the strategy example, the configuration, the links."""

import re
import subprocess
import sys
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from bot.config import load_settings
from bot.domain.position import Position
from bot.domain.strategy import load_strategy
from tests.support.builders import a_kline

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_first_screen_has_the_two_commands() -> None:
    first = README.splitlines()[:12]
    for command in ("scripts/run", "scripts/test"):
        assert any(line.startswith(command) for line in first)
        assert (ROOT / command).stat().st_mode & 0o111


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_every_command_named_exists() -> None:
    table = README[README.index("| command | does |") :]
    table = table[: table.index("\n\n")]
    commands = {name for cell in re.findall(r"^\| (.+?) \|", table, re.M) for name in re.findall(r"`([a-z-]+)", cell)}
    assert {"run", "backtest", "replay", "simulator", "check"} <= commands
    for command in commands - {"kill", "release", "retry", "drop"}:
        done = subprocess.run(
            [sys.executable, "-m", "bot.main", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_every_configuration_shown_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```toml\n(.+?)```", README, re.S)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        load_settings({}, file, {})


def test_the_example_strategy_trades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    block = next(block for block in re.findall(r"```toml\n(.+?)```", README, re.S) if "[strategy]" in block)
    chosen = tomllib.loads(block, parse_float=Decimal)["strategy"]
    strategy = load_strategy(chosen["path"], chosen["parameters"])
    state, sides = strategy.initial(), []
    held = Position(quantity=Decimal(1))
    for close, position in (("100", Position()), ("101", Position()), ("102.1", Position()), ("101", held)):
        state, signal = strategy.decide(state, a_kline(close=close), position)
        sides.append(signal.side.value if signal else None)
    assert sides == [None, None, "BUY", "SELL"]
