"""The broker's settings: what cannot work is refused before anything starts, in one line that shows no secret."""

import re
from pathlib import Path

import pytest
import yaml

from bot.config import ConfigError, KafkaSettings, load_settings

ROOT = Path(__file__).parents[2]
SASL = {"bootstrap_servers": "b:9092", "security_protocol": "sasl_ssl", "sasl_mechanism": "SCRAM-SHA-512"}
KEYS = {"username": "bot", "password": "correct-horse"}


def settings_of(**values: str) -> KafkaSettings:
    return load_settings(environment={f"BOT_KAFKA__{name.upper()}": value for name, value in values.items()}).kafka


def test_without_an_address_there_is_no_broker() -> None:
    assert settings_of().bootstrap_servers == ""
    assert settings_of(bootstrap_servers=" ").bootstrap_servers == ""


def test_addresses_and_topics_come_from_the_environment() -> None:
    settings = settings_of(bootstrap_servers="a.b:9092, [::1]:9093", klines__partitions="12", trades__cleanup="compact")
    assert settings.bootstrap_servers == "a.b:9092,[::1]:9093"
    assert (settings.klines.partitions, settings.klines.retention_hours) == (12, 720), "the rest of a topic stays"
    assert (settings.trades.cleanup, settings.trades.retention_hours) == ("compact", -1)


def test_credentials_are_taken_and_never_shown() -> None:
    settings = settings_of(**SASL, **KEYS)
    assert settings.password.get_secret_value() == "correct-horse"
    assert "horse" not in repr(settings)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"bootstrap_servers": "localhost"}, "kafka.bootstrap_servers: 'localhost' is refused: write it as host:port"),
        ({"bootstrap_servers": "a:1,b:70000"}, "kafka.bootstrap_servers: 'b:70000' is refused"),
        ({"bootstrap_servers": "http://a:9092"}, "kafka.bootstrap_servers: 'http://a:9092' is refused"),
        ({"topic_prefix": "a b"}, "kafka.topic_prefix: 'a b' is refused"),
        ({"klines__partitions": "0"}, "kafka.klines.partitions: '0' is refused: it must be at least 1"),
        ({"trades__cleanup": "never"}, "kafka.trades.cleanup: 'never' is refused: it must be 'delete', 'compact'"),
        ({"security_protocol": "tls"}, "kafka.security_protocol: 'tls' is refused: it must be 'plaintext', 'ssl'"),
        ({"security_protocol": "sasl_ssl"}, "kafka: sasl_mechanism is missing: security_protocol is sasl_ssl"),
        ({"sasl_mechanism": "PLAIN"}, "kafka: security_protocol is plaintext, which has no sasl_mechanism"),
        (SASL, "kafka: username is missing: set BOT_KAFKA__USERNAME"),
        (SASL | {"username": "correct-horse"}, "kafka: password is missing: set BOT_KAFKA__PASSWORD"),
        (
            {"security_protocol": "sasl_plaintext", "sasl_mechanism": "AWS_MSK_IAM"},
            "kafka: AWS_MSK_IAM needs security_protocol sasl_ssl",
        ),
        ({"ca_file": "ca.pem"}, "kafka: security_protocol is plaintext, which uses no ca_file; set it to ssl"),
        (
            {"security_protocol": "ssl", "key_file": "k.pem"},
            "kafka: certificate_file and key_file belong together; set both or none",
        ),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}") as raised:
        settings_of(**values)
    assert "horse" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["username", "password"])
def test_credentials_never_stand_in_the_file(tmp_path: Path, key: str) -> None:
    file = tmp_path / "bot.toml"
    file.write_text(f'[kafka]\n{key} = "correct-horse"\n')
    with pytest.raises(ConfigError) as raised:
        load_settings({}, file, {})
    assert str(raised.value) == f"{file}: kafka.{key} must not stand in a file; set BOT_KAFKA__{key.upper()}"


def test_the_compose_file_sets_up_the_bot_for_its_broker() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))["services"]
    settings = load_settings(environment=services["bot"]["environment"])
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"PLAINTEXT://{settings.kafka.bootstrap_servers}," in listeners
    assert (ROOT / "deploy" / services["bot"]["build"]["context"] / "Dockerfile").is_file()
