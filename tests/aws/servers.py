"""Real AWS servers on loopback: dynalite for DynamoDB's behaviour, moto for all other services and what dynalite lacks.

As fixtures one of each for a whole run (`dynalite`, `moto_url`); a test that kills its server starts one of its own.
"""

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import unused_port

ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"
_STARTS = 5


class Dynalite:
    """One dynalite process. With a `directory` its tables survive `kill` and `start`, which keeps the port."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and return once it listens."""
        for _ in range(_STARTS):
            port = self.port or unused_port()
            if self._listens(port):
                self.port = port
                return
        pytest.fail("dynalite does not start; see: scripts/dynalite", pytrace=False)

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()  # type: ignore[union-attr]
            self._process = None

    def _listens(self, port: int) -> bool:
        where = [] if self._directory is None else ["--path", str(self._directory)]
        self._process = subprocess.Popen(
            [ROOT / "scripts" / "dynalite", "--port", str(port), *where],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        if "listening" in self._process.stdout.readline():
            return True
        self.kill()
        return False


@contextmanager
def running_dynalite(directory: Path | None = None) -> Iterator[Dynalite]:
    """A dynalite of one test's own, which it may kill and start again."""
    server = Dynalite(directory)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def running_moto(**variables: str) -> Iterator[str]:
    """A moto server as a process of its own; it picks its port and says it. Yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = next((line.split()[-1] for line in process.stderr if "Running on http" in line), None)
        if url is None:
            pytest.fail("moto does not start; see: python -m moto.server", pytrace=False)
        # What it logs must not fill the pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def dynalite() -> Iterator[Dynalite]:
    """The run's DynamoDB server; never to be killed: a test that does so takes `running_dynalite`."""
    with running_dynalite() as server:
        yield server


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of the run's moto server; a test that counts what is there takes names of its own."""
    with running_moto() as url:
        yield url


@pytest.fixture
def table_prefix() -> str:
    """Names of tables that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials that both servers take, and none of this machine's, nor its region."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in no_credentials_but("a", "b", tmp_path).items():
        monkeypatch.setenv(name, value)


def no_credentials_but(access_key: str, secret_key: str, directory: Path) -> dict[str, str]:
    """Environment variables for a process that shall know these credentials alone; files are in `directory`."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": str(directory / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


@cache
def aws_client(service: str, url: str) -> Any:
    """A plain boto3 client, by which a test looks at what the bot did."""
    import boto3  # only now: these fixtures are known to tests that need none

    return boto3.client(service, region_name=REGION, endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")
