"""The jars of Apache Kafka, from Maven Central or the mirror that mvn is set to, kept in the user's cache directory."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SUMS = HERE / "jars.sha256"
POM = HERE / "pom.xml"
PINNED = "4.3.1"
"""The version whose jars' sums are known. Another one can be tried with BULKHEAD_KAFKA_VERSION."""


class NoBroker(Exception):
    """A broker cannot be started; the text is one line that names what to install or mend."""


def version() -> str:
    return os.environ.get("BULKHEAD_KAFKA_VERSION", PINNED)


def directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "bulkhead" / f"kafka-{version()}"


def java() -> str:
    """Return a Java of 17 or newer. Raises NoBroker."""
    home = os.environ.get("JAVA_HOME")
    found = f"{home}/bin/java" if home else shutil.which("java")
    if not found or not Path(found).exists():
        raise NoBroker("Apache Kafka needs Java 17 or newer; on Debian: apt-get install default-jre-headless")
    told = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=False)
    number = re.search(r'version "(\d+)', told.stderr + told.stdout)
    if number is None or int(number[1]) < 17:
        raise NoBroker(f"Apache Kafka needs Java 17 or newer, and {found} is older; set JAVA_HOME")
    return found


def have() -> bool:
    return directory().is_dir()


def can_fetch() -> bool:
    return shutil.which("mvn") is not None


def fetch() -> Path:
    """Return the directory of the jars, fetched if they are not there yet (about 45 MB). Raises NoBroker."""
    target = directory()
    if target.is_dir():
        return target
    if not can_fetch():
        raise NoBroker("the jars of Apache Kafka are fetched by mvn; on Debian: apt-get install maven")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        jars = Path(scratch) / "jars"
        ended = subprocess.run(
            [
                *("mvn", "-B", "-q", "--strict-checksums", "-f", str(POM), f"-Dkafka.version={version()}"),
                *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"),
            ],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if ended.returncode:
            cause = next((line for line in ended.stdout.splitlines() if "ERROR" in line), ended.stderr[-200:])
            raise NoBroker(f"mvn could not fetch Apache Kafka {version()}: {cause}; look at its settings.xml")
        _check(jars)
        try:
            jars.rename(target)
        except OSError:
            if not target.is_dir():  # else another run was faster
                raise
    return target


def _check(jars: Path) -> None:
    """Compare with the sums of the first use. Raises NoBroker."""
    if version() != PINNED:
        return
    known = dict(reversed(line.split()) for line in SUMS.read_text("utf-8").splitlines())
    got = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars.glob("*.jar")}
    if wrong := sorted(name for name in known.keys() | got.keys() if known.get(name) != got.get(name)):
        raise NoBroker(f"jars of Apache Kafka are not those of {SUMS}: {', '.join(wrong[:5])}")
