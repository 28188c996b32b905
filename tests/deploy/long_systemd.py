"""The unit under a real systemd, which boots in a namespace: scripts/container runs this, as root, on what it built.

What a test cannot do without it: whether the bot works within the unit's sandbox, whether systemd takes its word, what
follows a freeze, a kill and a wrong setting.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.boxes import BUILT
from tests.integration.processes import pause, wait_until

UNIT = Path(__file__).parents[2] / "deploy" / "bulkhead.service"


class Booted:
    """A machine whose first process is systemd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._init = 0
        self._log = (root.parent / "boot.log").open("wb")
        line = ["systemd-nspawn", "--register=no", "--keep-unit", "--private-network", "-D", str(root), "--boot"]
        self._nspawn = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)

    def await_boot(self) -> None:
        """Wait until systemd takes orders."""

        def booted() -> bool:
            assert self._nspawn.poll() is None, (self.root.parent / "boot.log").read_text("utf-8", "replace")
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
            self._init = int(children[0]) if children else 0
            return bool(children) and self.run("systemctl", "show", "--property=Version") != ""

        wait_until(booted, 60, "systemd takes orders")

    def run(self, *command: str) -> str:
        """What a command prints there; its status does not matter."""
        line = ["nsenter", "--target", str(self._init), "--all", *command]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False).stdout

    def show(self, *properties: str) -> list[str]:
        """Properties of the service."""
        wanted = self.run("systemctl", "show", "bulkhead", f"--property={','.join(properties)}")
        found = dict(line.split("=", 1) for line in wanted.splitlines())
        return [found[each] for each in properties]

    def await_running(self, timeout_s: float = 90) -> None:
        running = ["active", "running", "well"]
        wait_until(lambda: self.show("ActiveState", "SubState", "StatusText") == running, timeout_s, "the bot runs")

    def main_process(self) -> int:
        """The bot's process, by its number outside."""
        (inside,) = self.show("MainPID")
        here = os.readlink(f"/proc/{self._init}/ns/pid")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/pid") == here:
                    numbers = (process / "status").read_text().partition("NSpid:")[2].splitlines()[0].split()
                    if numbers[-1] == inside:
                        return int(numbers[0])
            except OSError:  # it has ended meanwhile
                continue
        raise AssertionError(f"no process {inside}")

    def set_mode(self, mode: str) -> None:
        (self.root / "etc/bulkhead/bulkhead.env").write_text(f"BOT_MODE={mode}\n" if mode else "")

    def off(self) -> None:
        # With its first process a machine ends; nspawn then ends by itself, and killed alone it would leave it behind.
        if self._init:
            os.kill(self._init, signal.SIGKILL)
        else:
            self._nspawn.kill()
        self._nspawn.wait()
        self._log.close()


@pytest.fixture(scope="module")
def machine() -> Iterator[Booted]:
    root = Path(BUILT, "machine").resolve()
    for old in ("opt/bulkhead", "var/lib/bulkhead", "var/log/bulkhead"):
        shutil.rmtree(root / old, ignore_errors=True)
    subprocess.run(["cp", "-a", Path(BUILT, "image/opt/bulkhead"), root / "opt/bulkhead"], check=True)
    (root / "opt/bulkhead/current").symlink_to(".")
    shutil.copy(UNIT, root / "etc/systemd/system")
    (root / "etc/bulkhead").mkdir(exist_ok=True)
    if "bulkhead:" not in (root / "etc/passwd").read_text():
        subprocess.run(["chroot", root, "useradd", "--system", "--uid", "10001", "bulkhead"], check=True)
    booted = Booted(root)
    try:
        booted.await_boot()
        booted.set_mode("demo")
        booted.run("systemctl", "start", "bulkhead")
        yield booted
    finally:
        booted.off()


def test_the_bot_works_within_its_sandbox(machine: Booted) -> None:
    machine.await_running()
    lines = Path(f"/proc/{machine.main_process()}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["CapEff"], status["NoNewPrivs"], status["Seccomp"]) == ("0000000000000000", "1", "2")
    data = machine.root / "var/lib/bulkhead"
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / "orders.db").stat().st_uid == 10001
    assert machine.show("NRestarts") == ["0"]


def test_what_is_killed_is_started_again(machine: Booted) -> None:
    os.kill(machine.main_process(), signal.SIGKILL)
    wait_until(lambda: machine.show("NRestarts") == ["1"], 60, "a restart")
    machine.await_running()


def test_what_freezes_is_found_by_the_watchdog_and_its_stacks_are_in_the_journal(machine: Booted) -> None:
    os.kill(machine.main_process(), signal.SIGSTOP)
    since = time.monotonic()
    wait_until(lambda: machine.show("Result") == ["watchdog"], 120, "the watchdog")
    print(f"found after {time.monotonic() - since:.0f} s")
    machine.await_running()
    assert "Fatal Python error: Aborted" in machine.run("journalctl", "--unit=bulkhead", "--no-pager")


def test_what_is_told_to_stop_stops_in_order_and_stays_so(machine: Booted) -> None:
    since = time.monotonic()
    machine.run("systemctl", "stop", "bulkhead")
    assert time.monotonic() - since < 12
    assert machine.show("ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]


def test_a_wrong_setting_ends_it_for_good(machine: Booted) -> None:
    machine.set_mode("")
    machine.run("systemctl", "start", "bulkhead")
    # Longer than RestartSec.
    pause(20)
    assert machine.show("ActiveState", "ExecMainStatus", "NRestarts")[:2] == ["failed", "2"]
    assert "mode: '' is refused" in machine.run("journalctl", "--unit=bulkhead", "--no-pager", "--lines=20")
