"""The image: its Dockerfile as hadolint reads it, and its program on a read-only root, without network, as process 1.

`scripts/container` builds the image itself and runs the same tests on it.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import bot.main
from bot.config import Mode
from tests.deploy.boxes import BUILT, DOCKERFILE, Box, Inside, build, stages
from tests.integration.processes import ExchangeProcess, Program, bulkhead, environment, pause, wait_until


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_stages_share_a_base_and_no_step_knows_an_architecture() -> None:
    first, last = stages()
    assert first[0][1].removesuffix(" AS build") == last[0][1]
    text = DOCKERFILE.read_text("utf-8")
    for word in ("amd64", "arm64", "x86_64", "aarch64", "--platform"):
        assert word not in text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    return None if BUILT else build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def box(made: Path | None) -> Iterator[Box]:
    # Not pytest's folder: a user of another number must be able to pass through it.
    with tempfile.TemporaryDirectory(prefix="bulkhead-box-") as place:
        Path(place).chmod(0o755)
        yield Box(made, Path(place) / "data")


def is_healthy(box: Box) -> bool:
    return box.run(*box.config.health).returncode == 0


def await_start(box: Box, inside: Inside) -> None:
    """Wait until the bot in it says that it is well; each question costs a Python, so not before it can be asked."""

    def started() -> bool:
        assert inside.is_running, inside.said
        return (box.data / "control.sock").exists()

    wait_until(started, 60, "the bot can be asked")
    wait_until(lambda: is_healthy(box), 20, "the health check passes")


def test_its_mode_is_named(box: Box) -> None:
    assert box.config.environment["BOT_MODE"] in {mode.value for mode in Mode}
    refused = box.run(*box.config.command, BOT_MODE="")
    assert refused.returncode == 2
    assert "mode" in refused.stderr


@pytest.mark.slow
def test_it_runs_on_a_read_only_root_without_network_and_stops_when_told(box: Box) -> None:
    assert box.config.stop_signal == "SIGTERM"
    assert box.config.volumes == ("/data",)
    assert not is_healthy(box)
    with box.running() as inside:
        await_start(box, inside)
        status = inside.status()
        assert status["NSpid"].split()[-1] == "1"
        assert status["CapEff"] == "0000000000000000"
        wrote = box.run("python", "-c", "open('/opt/bulkhead/x', 'w')")
        assert "Read-only file system" in wrote.stderr
        inside.send(signal.SIGTERM)
        assert inside.ends(10) == 0, inside.said
    assert not is_healthy(box)
    assert (box.data / "orders.db").exists()


@pytest.mark.slow
def test_it_ends_unwell_when_its_supervisor_is_dead(box: Box) -> None:
    with box.running(*box.config.command, "--allow-chaos") as inside:
        await_start(box, inside)
        killed = box.run("python", "-m", "bot.main", "actors", "kill", "supervisor", "--how", "vanish")
        assert killed.returncode == 0, killed.stderr
        assert inside.ends(15) == 1
        assert "the supervisor" in inside.said
    assert not is_healthy(box)


# The time after which a feed counts as stale, two minutes, is the one thing that is not as in the image.
IMPATIENT = "import bot.app.health as h; h.STALE_AFTER_MS = 3_000; from bot.main import run; run()"


class Impatient(Program):
    """A bot for which a feed is stale after three seconds."""

    def _spawn(self, program: list[str], cwd: Path, variables: dict[str, str]) -> "subprocess.Popen[str]":
        return super()._spawn([sys.executable, "-c", IMPATIENT, *program[3:]], cwd, variables)


@pytest.mark.slow
def test_the_health_check_fails_when_no_feed_brings_klines_any_more(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def health() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            bulkhead("status", "--healthy"),
            cwd=tmp_path,
            env=environment(BOT_DATA_DIR=str(data)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with ExchangeProcess(tmp_path / "exchange", 1, 250) as exchange:
        settings = {**exchange.settings, "BOT_MODE": "testnet", "BOT_DATA_DIR": str(data)}
        with Impatient("run", cwd=tmp_path, settings=settings) as bot:
            wait_until((data / "control.sock").exists, 60, "the bot can be asked")
            wait_until(lambda: health().returncode == 0, 30, "the health check passes")
            exchange.kill()
            pause(3)
            wait_until(lambda: "no feed brought a kline" in health().stdout, 30, "the health check fails")
            assert health().returncode == 1
            # It is the exchange that is away: the bot waits for it.
            assert bot.is_running


def test_the_first_process_of_a_container_hears_sigterm_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["bulkhead", "--help"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            bot.main.run()
        # Without a handler the kernel drops it there.
        assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
