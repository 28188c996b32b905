"""The systemd unit as systemd's own tools read it, and what the bot it starts says to systemd."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.processes import Program, command, wait_until
from tests.support.notify_socket import listening

UNIT = Path(__file__).parents[2] / "deploy" / "bulkhead.service"
PROGRAM = "/opt/bulkhead/current/bin/bulkhead"


def analyze(*arguments: object) -> str:
    """What systemd-analyze says; it must be there: a unit that nobody read is not tested."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.fail("systemd-analyze is not here; install it: apt-get install systemd", pytrace=False)
    done = subprocess.run(
        [tool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, env={"SYSTEMD_PAGER": ""}
    )
    return done.stdout + done.stderr


def service() -> dict[str, list[str]]:
    """The unit's [Service] section: a key may stand there more than once."""
    found: dict[str, list[str]] = {}
    section = UNIT.read_text("utf-8").partition("[Service]")[2].partition("[Install]")[0]
    for key, value in re.findall(r"^(\w+)=(.*)$", section, re.M):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", [UNIT, UNIT.with_name("bulkhead-container.service")], ids=["venv", "container"])
def test_systemd_knows_every_key(tmp_path: Path, unit: Path) -> None:
    copy = tmp_path / unit.name
    # Neither the program nor Docker is on this machine, which is no fault of the unit.
    text = unit.read_text("utf-8").replace("docker.service", "basic.target")
    copy.write_text(text.replace(PROGRAM, "/bin/true").replace("/usr/bin/docker", "/bin/true"))
    assert analyze("verify", copy) == ""
    copy.write_text(copy.read_text("utf-8").replace("RestartSec=", "ReStartSec="))
    assert "ReStartSec" in analyze("verify", copy)


def test_it_is_hardened() -> None:
    said = analyze("security", "--offline=true", "--no-pager", UNIT)
    score = re.search(r"Overall exposure level for bulkhead.service: (\d+\.\d)", said)
    assert score is not None, said
    assert float(score[1]) <= 1.2


def test_it_ends_and_starts_again_as_the_exit_status_says() -> None:
    assert service()["Restart"] == ["on-failure"]
    assert service()["RestartPreventExitStatus"] == ["2"]
    assert int(service()["TimeoutStopSec"][0]) > 10
    assert service()["Type"] == ["notify"]
    assert int(service()["WatchdogSec"][0]) > 30
    assert "StartLimitIntervalSec=0" in UNIT.read_text("utf-8")


def test_a_service_whose_file_forgets_the_mode_is_refused(tmp_path: Path) -> None:
    environment = dict(
        pair.split("=", 1) for line in service()["Environment"] for pair in line.split() if pair.startswith("BOT_")
    )
    assert environment.pop("BOT_MODE") == ""
    refused = command("run", "--for", "1s", cwd=tmp_path, BOT_MODE="", BOT_DATA_DIR=str(tmp_path / "data"))
    assert refused.returncode == 2
    assert "mode" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ["told", "hung"])
def test_a_real_bot_feeds_the_watchdog_until_its_supervisor_hangs(tmp_path: Path, end: str) -> None:
    # A watchdog of one second is fed every half of one.
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    data = str(tmp_path / "data")
    with (
        listening(tmp_path / "notify") as heard,
        Program("run", "--allow-chaos", cwd=tmp_path, settings={**told, "BOT_DATA_DIR": data}) as bot,
    ):
        wait_until(lambda: heard.count("WATCHDOG=1") >= 3, 20, "the watchdog fed")
        assert heard[0] == "READY=1\nSTATUS=well"
        if end == "told":
            bot.send(signal.SIGTERM)
            assert bot.ends(10) == 0
            wait_until(lambda: "STOPPING=1\nSTATUS=stopping in order" in heard, 10, "the last word")
            return
        since = time.monotonic()
        killed = command("actors", "kill", "supervisor", "--how", "hang", "--data-dir", data, cwd=tmp_path)
        assert killed.returncode == 0, killed.stderr
        fed = heard.count("WATCHDOG=1")
        # The guardian above the supervisor ends the process by itself, after five seconds.
        assert bot.ends(20) == 1
        assert time.monotonic() - since > 3
        # One word may have been on its way.
        assert heard.count("WATCHDOG=1") <= fed + 1
