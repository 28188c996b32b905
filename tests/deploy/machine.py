"""What a machine's user data does, without the machine: run for real, in bwrap, on folders of its own.

What it calls of Amazon Linux and of AWS is noted by a stand-in that does nothing, or as little as what follows needs.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_NOTED = (
    *("dnf", "aws", "mkfs.xfs", "mount", "useradd", "chown", "systemctl", "docker", "blkid", "runuser", "cfn-signal"),
    *("amazon-cloudwatch-agent-ctl", "python3.12", "sleep", "curl"),
)
_MORE = {
    # The instance metadata service.
    "curl": "case $* in *api/token*) echo token;; *) echo i-0123456789;; esac",
    "python3.12": 'mkdir -p "$3/bin"; ln -s /stubs/pip "$3/bin/pip"',
    # A volume that has never been used.
    "blkid": "exit 2",
    # It appears once it is attached.
    "aws": "case $* in *attach-volume*) mkdir -p /dev/disk/by-id; "
    "touch /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol${4#vol-};; esac",
    "chown": "",
}


@dataclass(frozen=True)
class Machine:
    """`status` is the script's exit status, `calls` what it called, in order, `root` what it wrote."""

    status: int
    calls: list[str]
    root: Path
    said: str

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text("utf-8")

    def environment(self) -> dict[str, str]:
        """The settings that the bot is started with there."""
        lines = self.text("/etc/bulkhead/bulkhead.env").splitlines()
        return dict(line.split("=", 1) for line in lines)


def boot(user_data: str, directory: Path, stubs: Mapping[str, str] | None = None) -> Machine:
    """Run the script in a box whose /etc, /opt, /var and /usr/local/bin are new; `stubs` replace stand-ins."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.fail("bwrap is not here; install it: apt-get install bubblewrap", pytrace=False)
    bodies = {**dict.fromkeys((*_NOTED, "pip"), ""), **_MORE, **(stubs or {})}
    tools = directory / "stubs"
    tools.mkdir(parents=True)
    for name, body in bodies.items():
        tool = tools / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> /etc/calls\n{body}\n')
        tool.chmod(0o755)
    for folder in ("etc/systemd/system", "opt/aws/bin", "var/log", "usr/local/bin"):
        (directory / folder).mkdir(parents=True)
    agent = directory / "opt/aws/amazon-cloudwatch-agent"
    for folder in ("bin", "etc"):
        (agent / folder).mkdir(parents=True)
    (directory / "opt/aws/bin/cfn-signal").symlink_to("/stubs/cfn-signal")
    (agent / "bin/amazon-cloudwatch-agent-ctl").symlink_to("/stubs/amazon-cloudwatch-agent-ctl")
    # /usr/local/bin's own tools come first on a machine's PATH.
    script = directory / "user-data"
    script.write_text(user_data)
    binds = [(directory / "etc", "/etc"), (directory / "opt", "/opt"), (directory / "var", "/var")]
    binds += [(directory / "usr/local/bin", "/usr/local/bin"), (tools, "/stubs")]
    line = [bwrap, "--ro-bind", "/usr", "/usr"]
    for link in ("bin", "lib", "lib64", "sbin"):
        line += ["--symlink", f"usr/{link}", f"/{link}"]
    line += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-all", "--uid", "0", "--gid", "0"]
    for outside, inside in binds:
        line += ["--bind", str(outside), inside]
    line += ["--ro-bind", str(script), "/user-data", "--clearenv", "--setenv", "PATH", "/stubs:/usr/local/bin:/usr/bin"]
    done = subprocess.run(
        [*line, "bash", "/user-data"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = directory / "etc/calls"
    called = calls.read_text("utf-8").splitlines() if calls.exists() else []
    return Machine(done.returncode, called, directory, done.stdout + done.stderr)
