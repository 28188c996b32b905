"""All of the bot's coins sold by one command: of a running bot, and of one that does not run."""

import shlex
import signal
import subprocess
from decimal import Decimal

import pytest

from tests.integration.processes import Program, command, environment, told, wait_until

EAGER = {"BOT_BUY_DROP": "0.0002", "BOT_SELL_RISE": "0.9"}
DUST = {"BTCUSDT": Decimal("0.0001"), "ETHUSDT": Decimal("0.002"), "DOGEUSDT": Decimal(40)}
"""What is worth less than the least notional of 5 USDT, at about the prices that the market begins with."""


def positions(data, cwd):
    held = told("wallet", "--data-dir", data, cwd=cwd)["positions"]
    return {symbol: Decimal(quantity) for symbol, quantity in held.items()}


def is_flat(data, cwd):
    return all(quantity < DUST[symbol] for symbol, quantity in positions(data, cwd).items())


@pytest.mark.slow
def test_all_is_sold_by_a_running_bot_and_by_one_that_is_started_for_it(tmp_path):
    data = tmp_path / "data"
    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        wait_until(lambda: len(bot.events("trade")) >= 3, 20, "three trades")
        said = command("halt", "--flatten", "--data-dir", data, cwd=tmp_path)
        assert (said.returncode, said.stderr) == (0, "")
        assert "selling all of " in said.stdout
        wait_until(lambda: is_flat(data, tmp_path), 15, "nothing held but dust")
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    sold = [trade for trade in told("trades", "--data-dir", data, cwd=tmp_path) if trade["side"] == "SELL"]
    assert sold
    assert all(trade["reason"].startswith("flatten") for trade in sold)

    assert command("resume", "--data-dir", data, cwd=tmp_path).returncode == 0
    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        wait_until(lambda: len(bot.events("trade")) >= 2, 20, "two trades")
        bot.kill()
    assert not is_flat(data, tmp_path)
    said = command("halt", "--flatten", "--data-dir", data, cwd=tmp_path)
    assert "no bot runs there, so nothing was sold" in said.stdout
    (line,) = [line.strip() for line in said.stdout.splitlines() if "--flatten" in line]
    ended = subprocess.run(
        shlex.split(line), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert is_flat(data, tmp_path)
    assert not (data / "flatten").exists()
    assert (data / "halt").exists()
