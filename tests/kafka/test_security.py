"""Certificates, credentials and rights on the real broker: wrong ones are one line with the fix."""

import base64
import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from bot.adapters.kafka.admin import Topics
from bot.adapters.kafka.reader import KafkaReader
from bot.adapters.sqlite import SqliteJournal
from bot.app.account import note_name
from bot.app.data_directory import DataDirectory, Identity
from bot.cli.parser import main
from bot.config import KafkaSettings
from bot.messages import BookOpened
from bot.ports import ConfigurationRefused, Link
from tests.integration.processes import wait_until
from tests.kafka.streams import by_symbol, everything, klines, linked, make_topics, polled, publish, publisher_of
from tests.support.kafka.brokers import PASSWORD, USER, ApacheKafka
from tests.support.kafka.certificates import Authority

pytestmark = pytest.mark.kafka("acl", "sasl", "tls", "restart")

Allow = Callable[..., None]


@pytest.fixture
def allow(broker: ApacheKafka, kafka: KafkaSettings) -> Allow:
    """Gives rights on the test's own topics, or on a group of its own, to a user."""

    def give(*operations: AclOperation, user: str = USER, kind: ResourceType = ResourceType.TOPIC) -> None:
        admin = AdminClient({"bootstrap.servers": broker.servers})
        bindings = [
            AclBinding(
                kind,
                kafka.topic_prefix,
                ResourcePatternType.PREFIXED,
                f"User:{user}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        for future in admin.create_acls(bindings).values():
            future.result(60)
        # The controller has them; the broker takes them over a moment later.
        wait_until(lambda: all(is_known(admin, binding) for binding in bindings), 10, "the rights hold")

    return give


def is_known(admin: AdminClient, binding: AclBinding) -> bool:
    """Whether the broker goes by a right."""
    wanted = AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )
    return bool(admin.describe_acls(wanted).result(60))


def named(kafka: KafkaSettings, servers: str, protocol: str, mechanism: str, **more: object) -> KafkaSettings:
    values = kafka.model_dump() | {
        "bootstrap_servers": servers,
        "security_protocol": protocol,
        "sasl_mechanism": mechanism,
        "username": USER,
        "password": PASSWORD,
    }
    return KafkaSettings(**(values | more))


ALL = (AclOperation.CREATE, AclOperation.DESCRIBE, AclOperation.READ, AclOperation.WRITE)


@pytest.mark.parametrize(("mechanism", "tls"), [("SCRAM-SHA-256", False), ("SCRAM-SHA-512", True), ("PLAIN", True)])
def test_a_named_user_publishes_and_reads(
    broker: ApacheKafka, kafka: KafkaSettings, allow: Allow, mechanism: str, tls: bool
) -> None:
    allow(*ALL)
    allow(AclOperation.READ, kind=ResourceType.GROUP)
    if tls:
        authority = broker.authority.file
        settings = named(kafka, broker.sasl_ssl_servers, "sasl_ssl", mechanism, ca_file=authority)
    else:
        settings = named(kafka, broker.sasl_servers, "sasl_plaintext", mechanism)
    assert len(Topics(settings).create_missing()) == 3
    publisher = publisher_of(settings)
    publish(publisher, klines(20))
    publisher.close(5)
    assert by_symbol(everything(settings, "KafkaStreams")) == by_symbol(klines(20))
    reader = KafkaReader(settings, ["KafkaStreams"], f"{kafka.topic_prefix}readers")
    assert wait_until(lambda: reader.poll(100, 0.5), 20, "records of a group")
    reader.close()


def test_a_certificate_can_be_who_the_bot_is(
    broker: ApacheKafka, kafka: KafkaSettings, allow: Allow, tmp_path: Path
) -> None:
    own = broker.authority.sign("bulkhead-bot")
    settings = kafka.model_copy(
        update={
            "bootstrap_servers": broker.ssl_servers,
            "security_protocol": "ssl",
            "ca_file": broker.authority.file,
            "certificate_file": own,
            "key_file": own,
        }
    )
    with pytest.raises(ConfigurationRefused, match="this user may not make it"):
        make_topics(settings)
    allow(*ALL, user="CN=bulkhead-bot")
    assert len(Topics(settings).create_missing()) == 3


def test_a_right_that_is_missing_is_told_and_once_given_nothing_was_lost(
    broker: ApacheKafka, kafka: KafkaSettings, allow: Allow
) -> None:
    make_topics(kafka)
    settings = named(kafka, broker.sasl_servers, "sasl_plaintext", "SCRAM-SHA-256")
    allow(AclOperation.DESCRIBE)
    publisher = publisher_of(settings)
    publisher.publish(30, klines(30))
    assert "allow WRITE, READ and DESCRIBE on it with an ACL" in linked(publisher, Link.REFUSED)
    polled(publisher, lambda: publisher.taken == 0, "it fell back")
    allow(AclOperation.WRITE)
    publish(publisher, klines(30))
    assert publisher.state().link is Link.UP
    publisher.close(5)
    assert by_symbol(everything(kafka, "KafkaStreams")) == by_symbol(klines(30))


def token(subject: str, seconds: float) -> tuple[str, int]:
    """An unsigned token, as the broker's own validator for tests takes it; and when it ends, in ms."""
    now = time.time()
    claims = {"sub": subject, "iat": now - 1, "exp": now + seconds}
    parts = ({"alg": "none"}, claims)
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return text + ".", int((now + seconds) * 1_000)


def test_tokens_as_msk_has_them_are_renewed_before_they_end(
    broker: ApacheKafka, kafka: KafkaSettings, allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # AWS cannot be asked here: its signer's place is taken by one whose tokens this broker takes.
    given: list[str] = []

    def generate(region: str) -> tuple[str, int]:
        given.append(region)
        return token(USER, 4)

    monkeypatch.setattr("aws_msk_iam_sasl_signer.MSKAuthTokenProvider.generate_auth_token", generate)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "an example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    allow(*ALL)
    settings = named(
        kafka,
        broker.sasl_ssl_servers,
        "sasl_ssl",
        "AWS_MSK_IAM",
        ca_file=broker.authority.file,
        username="",
        password="",
    )
    assert len(Topics(settings).create_missing()) == 3
    publisher = publisher_of(settings)
    publish(publisher, klines(10))
    before = len(given)
    polled(publisher, lambda: len(given) >= before + 2, "the token was renewed twice", 30)
    publish(publisher, klines(10, first=10), base=10)
    assert publisher.state().link is Link.UP
    publisher.close(5)
    assert set(given) == {"eu-central-1"}
    assert by_symbol(everything(kafka, "KafkaStreams")) == by_symbol(klines(20))


@pytest.fixture
def checked(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Runs `check` with settings of kafka; returns its lines about the broker, which must all be right or one wrong."""
    monkeypatch.chdir(tmp_path)

    def run(servers: str, **settings: object) -> list[str]:
        for name, value in {"bootstrap_servers": servers, "topic_prefix": kafka.topic_prefix, **settings}.items():
            monkeypatch.setenv(f"BOT_KAFKA__{name.upper()}", str(value))
        status = main(["check", "--data-dir", "data"])
        lines = capsys.readouterr().out.splitlines()
        about = [
            line for line in lines if line.startswith(("ok    kafka", "ok    topic", "wrong kafka", "wrong topic"))
        ]
        assert status == any(line.startswith("wrong") for line in about)
        assert "horse" not in "".join(lines), "no password is shown"
        return about

    return run


SCRAM = {
    "security_protocol": "sasl_plaintext",
    "sasl_mechanism": "SCRAM-SHA-256",
    "username": USER,
    "password": PASSWORD,
}


def test_check_says_what_is_there(
    broker: ApacheKafka, kafka: KafkaSettings, allow: Allow, checked: Callable[..., list[str]]
) -> None:
    prefix = kafka.topic_prefix
    lines = checked(broker.servers)
    assert lines[0] == f"ok    kafka: {broker.servers} answers, 1 broker, plaintext"
    assert lines[1] == f"ok    topic {prefix}KafkaStreams: is not there, and will be made at the start: 3 partitions"
    assert lines[4:] == ["ok    topics' book: nobody's yet, the first run makes them its own"]
    assert Topics(kafka).partitions() == {}, "to check makes nothing"
    make_topics(kafka)
    assert checked(broker.servers)[1:] == [
        f"ok    topic {prefix}KafkaStreams: 3 partitions, kept 720 h",
        f"ok    topic {prefix}trades: 3 partitions, kept for ever",
        f"ok    topic {prefix}actor-events: 1 partitions, kept 720 h",
        "ok    topics' book: nobody's yet, the first run makes them its own",
    ]
    allow(AclOperation.DESCRIBE, AclOperation.READ, AclOperation.WRITE)
    assert checked(broker.sasl_servers, **SCRAM)[1] == f"ok    topic {prefix}KafkaStreams: 3 partitions"


def test_check_says_whose_the_topics_are(
    broker: ApacheKafka, kafka: KafkaSettings, checked: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Topics(kafka).create_missing()
    publisher = publisher_of(kafka)
    publish(publisher, [BookOpened("book", "demo", "simulated", "paper", "bulkhead", Decimal(1), "[]", 1)])
    publisher.close(5)
    assert checked(broker.servers)[4] == "ok    topics' book: a demo book of bulkhead, simulated"
    directory = DataDirectory(Path("data"))
    directory.path.mkdir()
    directory.belong_to(Identity("demo", "simulated", "uid 7", "bulkhead"))
    # Published before the exchange told the account's number: a run takes it for its own.
    with SqliteJournal(directory.orders) as journal:
        note_name(journal, "paper")
    assert checked(broker.servers)[4].startswith("ok    topics' book: a demo book of bulkhead")
    monkeypatch.setenv("BOT_BOT_ID", "other")
    assert checked(broker.servers)[4] == (
        f"wrong topics' book: topic {kafka.topic_prefix}actor-events belongs to another bot "
        "(bot_id is 'bulkhead', not 'other'); give these a kafka.topic_prefix of their own"
    )


@pytest.mark.parametrize(
    ("servers", "changed", "says"),
    [
        ("127.0.0.1:1", {}, "127.0.0.1:1: nothing listens there; start the broker, or mend kafka.bootstrap_servers"),
        ("no-such-host.invalid:9092", {}, "the host's name is not known; mend kafka.bootstrap_servers"),
        ("ssl", {}, "no broker answers; look whether it runs and whether kafka.security_protocol, which is plaintext,"),
        (
            "servers",
            {"security_protocol": "ssl"},
            "no TLS is spoken there; mend kafka.security_protocol, which is ssl,",
        ),
        ("ssl", {"security_protocol": "ssl"}, "its certificate is not signed by who kafka.ca_file names"),
        ("ssl", {"security_protocol": "ssl", "ca_file": "other"}, "its certificate is not signed by who kafka.ca_file"),
        ("ssl", {"security_protocol": "ssl", "ca_file": "/no/such.pem"}, "kafka.ca_file /no/such.pem: No such file"),
        ("ssl", {"security_protocol": "ssl", "ca_file": "/etc/hostname"}, "kafka.ca_file failed: "),
        ("localhost", {"security_protocol": "ssl", "ca_file": "right"}, "or not for this host; mend kafka.ca_file"),
        (
            "sasl",
            SCRAM | {"password": "battery"},
            "the broker does not take these credentials; mend BOT_KAFKA__USERNAME",
        ),
        (
            "sasl",
            SCRAM | {"username": "nobody"},
            "the broker does not take these credentials; mend BOT_KAFKA__USERNAME",
        ),
        ("servers", SCRAM, "SCRAM-SHA-256 is not taken on this port; mend kafka.sasl_mechanism or the port"),
    ],
)
def test_check_says_what_is_wrong_with_the_way_to_the_broker(
    broker: ApacheKafka,
    checked: Callable[..., list[str]],
    tmp_path: Path,
    servers: str,
    changed: dict[str, object],
    says: str,
) -> None:
    addresses = {"servers": broker.servers, "sasl": broker.sasl_servers, "ssl": broker.ssl_servers}
    addresses["localhost"] = broker.ssl_servers.replace("127.0.0.1", "localhost")
    files = {"right": broker.authority.file, "other": Authority(tmp_path / "other").file}
    changed = {name: files.get(value, value) for name, value in changed.items()}
    (line,) = checked(addresses.get(servers, servers), **changed)
    assert line.startswith("wrong kafka: ")
    assert says in line


def test_check_says_which_right_is_missing(
    broker: ApacheKafka, kafka: KafkaSettings, allow: Allow, checked: Callable[..., list[str]]
) -> None:
    first, *topics = checked(broker.sasl_servers, **SCRAM)
    assert first.startswith("ok    kafka: ")
    assert len(topics) == 3
    assert all(
        "this user may not make it; make it, and allow this user WRITE, READ and DESCRIBE" in line for line in topics
    )
    make_topics(kafka)
    assert checked(broker.sasl_servers, **SCRAM)[1:] == topics, "what may not be seen is as if it was not there"
    allow(AclOperation.DESCRIBE)
    lines = checked(broker.sasl_servers, **SCRAM)[1:]
    assert lines[0] == (
        f"wrong topic {kafka.topic_prefix}KafkaStreams: this user may not READ and WRITE it; "
        "allow that with an ACL on the topic"
    )
    allow(AclOperation.READ)
    assert all("this user may not WRITE it;" in line for line in checked(broker.sasl_servers, **SCRAM)[1:])


def test_check_says_that_a_topic_forgets_what_a_bot_needs_or_cannot_be_made(
    broker: ApacheKafka, kafka: KafkaSettings, checked: Callable[..., list[str]]
) -> None:
    compacted = kafka.model_copy(update={"klines": kafka.klines.model_copy(update={"cleanup": "compact"})})
    make_topics(compacted)
    lines = checked(broker.servers)
    assert lines[1] == (
        f"wrong topic {kafka.topic_prefix}KafkaStreams: its cleanup.policy is compact, which keeps only "
        "the last message of a symbol; set it to delete"
    )
    lines = checked(broker.servers, topic_prefix="other.", replication_factor=3)
    assert lines[0].startswith("ok")
    assert all("kafka.replication_factor" in line for line in lines[1:])
