"""The image without a container engine: its files as a read-only root in bwrap, without network, as its own user.

By default the machine's own files with what the Dockerfile's steps make of the checkout; with BULKHEAD_TEST_IMAGE the
image that scripts/container built.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
BUILT = os.environ.get("BULKHEAD_TEST_IMAGE", "")
PACKAGES = "/mnt/packages"
"""Where the box has what the bot depends on: the checkout itself may be in a folder that the box hides, as /tmp."""


class Config(msgspec.Struct, frozen=True):
    """What an engine knows of an image beside its files."""

    user: str
    directory: str
    environment: Mapping[str, str]
    command: tuple[str, ...]
    health: tuple[str, ...]
    volumes: tuple[str, ...]
    stop_signal: str


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, (name, arguments), by stage."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text("utf-8"))
    found: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append([])
        if name and not name.startswith("#"):
            found[-1].append((name, arguments.strip()))
    return found


def config() -> Config:
    """The image's config: as built, else as the Dockerfile's last stage says."""
    if BUILT:
        built = json.loads(Path(BUILT, "image.json").read_text("utf-8"))["Docker"]["config"]
        return Config(
            built["User"],
            built["WorkingDir"],
            dict(pair.split("=", 1) for pair in built["Env"]),
            tuple(built["Cmd"]),
            tuple(built["Healthcheck"]["Test"][1:]),
            tuple(built["Volumes"]),
            built["StopSignal"],
        )
    last = dict(stages()[-1])
    environment = dict(pair.split("=", 1) for pair in last["ENV"].split())
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    health = re.search(r"CMD (\[.+\])", last["HEALTHCHECK"])
    assert health is not None
    return Config(
        last["USER"],
        last["WORKDIR"],
        environment,
        tuple(json.loads(last["CMD"])),
        tuple(json.loads(health[1])),
        (last["VOLUME"],),
        last["STOPSIGNAL"],
    )


def build(directory: Path) -> Path:
    """Take the first stage's steps on what .dockerignore lets through, and return what is /opt/bulkhead.

    The packages that it depends on, and what builds it, are those of the tests' own environment: nothing is downloaded.
    """
    source, made = directory / "src", directory / "bulkhead"
    source.mkdir()
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").split() if line.startswith("!")]
    for name, arguments in stages()[0]:
        if name != "COPY":
            continue
        *what, where = arguments.split()
        for each in what:
            assert each in let_through, f"{each} is copied by the Dockerfile and kept out by .dockerignore"
            if (ROOT / each).is_dir():
                shutil.copytree(ROOT / each, source / where, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / each, source / where)
    run = next(arguments for name, arguments in stages()[0] if name == "RUN")
    assert "/opt/bulkhead/bin/pip install --no-cache-dir ." in run
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True, timeout=60)
    packages = next(made.glob("lib/python*/site-packages"))
    # Of the two the one that is there counts: outside the box, and inside it.
    (packages / "dependencies.pth").write_text(f"{Path(msgspec.__file__).parents[1]}\n{PACKAGES}\n")
    pip = [sys.executable, "-m", "pip", "--python", made / "bin" / "python"]
    alone = ["--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    subprocess.run([*pip, "install", *alone, "."], cwd=source, check=True, timeout=120)
    return made


class Box:
    """One container: a root that cannot be written, /data that can, no network, the program as its first process."""

    def __init__(self, made: Path | None, data: Path) -> None:
        self.config = config()
        self.data = data
        self._made = made
        data.mkdir(exist_ok=True)
        if BUILT and os.geteuid() == 0:
            os.chown(data, int(self.config.user), int(self.config.user))

    def line(self, *command: str, **variables: str) -> list[str]:
        """The command line that runs `command` in it."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            pytest.fail("bwrap is not here; install it: apt-get install bubblewrap", pytrace=False)
        user = self.config.user
        line = [bwrap, "--ro-bind", str(Path(BUILT, "image").resolve()) if BUILT else "/", "/"]
        if BUILT and os.geteuid() == 0:
            line = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *line]
        line += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
        if self._made is not None:
            # Places of the image that this machine has not, and what in them is needed.
            line += ["--tmpfs", "/opt", "--ro-bind", str(self._made), "/opt/bulkhead"]
            line += ["--tmpfs", "/mnt", "--ro-bind", str(Path(msgspec.__file__).parents[1]), PACKAGES]
            line += ["--remount-ro", "/opt", "--remount-ro", "/mnt"]
        where = "/data" if BUILT else "/tmp/data"
        line += ["--bind", str(self.data), where, "--unshare-all", "--die-with-parent", "--as-pid-1"]
        line += ["--uid", user, "--gid", user, "--clearenv"]
        for name, value in {**self.config.environment, "BOT_DATA_DIR": where, **variables}.items():
            line += ["--setenv", name, value]
        return [*line, "--chdir", self.config.directory if BUILT else "/", *command]

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `command` in a box of the same image and data to its end, as an engine runs a health check."""
        return subprocess.run(
            self.line(*command, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextmanager
    def running(self, *command: str, **variables: str) -> Iterator["Inside"]:
        """Run `command` (the image's own, if none is given) until the `with` is left."""
        told, tell = os.pipe()
        line = self.line(*(command or self.config.command), **variables)
        log = self.data.parent / "box.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*line[: line.index("--ro-bind")], "--info-fd", str(tell), *line[line.index("--ro-bind") :]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(tell,),
            )
        os.close(tell)
        with os.fdopen(told) as info:
            first = int(json.load(info)["child-pid"])
        try:
            yield Inside(process, first, log)
        finally:
            process.kill()
            process.wait()


class Inside:
    """A running box."""

    def __init__(self, process: subprocess.Popen[bytes], first: int, log: Path) -> None:
        self._process = process
        self._first = first
        self._log = log

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return self._log.read_text("utf-8")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: int) -> None:
        """Send a signal to its first process, as an engine does."""
        os.kill(self._first, number)

    def status(self) -> dict[str, str]:
        """What the kernel says of the first process."""
        lines = Path(f"/proc/{self._first}/status").read_text("utf-8").splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def ends(self, timeout_s: float) -> int:
        """Its exit status."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {timeout_s} s:\n{self.said}") from None
