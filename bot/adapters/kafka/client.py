"""How any Kafka client of the bot is configured, and what a client's errors mean in one line with the fix."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from bot.config import KafkaSettings
from bot.ports import ConfigurationRefused

Client = TypeVar("Client")


class ConnectionFailed(ConnectionError):
    """The broker is away for now; the text is one line with the fix."""


SILENT = logging.getLogger("bot.kafka.client")
"""Where librdkafka's own lines go: nowhere, since what they tell stands in the state, in one line with the fix."""
SILENT.disabled = True


def client_config(settings: KafkaSettings, region: str = "") -> dict[str, Any]:
    """Return the part of a client's configuration that says where the broker is and how it is spoken to.

    `region` is where AWS_MSK_IAM signs for; empty is AWS's own choice. Raises ConfigurationRefused.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "bulkhead",
        "security.protocol": settings.security_protocol,
        "logger": SILENT,
        # A broker that is back is found at once rather than after 10 s.
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
        "socket.connection.setup.timeout.ms": 5_000,
        "socket.keepalive.enable": True,
        "topic.metadata.refresh.interval.ms": 30_000,
    }
    paths = (settings.ca_file, settings.certificate_file, settings.key_file)
    for (key, name), path in zip(_OURS.items(), paths, strict=True):
        if path is not None:
            try:
                path.open("rb").close()
            except OSError as error:
                raise ConfigurationRefused(f"{name} {path}: {error.strerror}; name a PEM file there") from None
            config[key] = str(path)
    if settings.sasl_mechanism == "AWS_MSK_IAM":
        config["sasl.mechanism"] = "OAUTHBEARER"
        config["oauth_cb"] = _msk_token(region)
    elif settings.sasl_mechanism:
        config["sasl.mechanism"] = settings.sasl_mechanism
        config["sasl.username"] = settings.username.get_secret_value()
        config["sasl.password"] = settings.password.get_secret_value()
    return config


def open_client(kind: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """Return a new client of `kind`. Raises ConfigurationRefused where the library takes no such configuration."""
    try:
        return kind(config)
    except KafkaException as error:
        text = " ".join(error.args[0].str().split())
        for key, name in _OURS.items():
            text = text.replace(key, name)
        raise ConfigurationRefused(f"kafka: {text}; mend what it names") from None


_OURS = {
    "ssl.ca.location": "kafka.ca_file",
    "ssl.certificate.location": "kafka.certificate_file",
    "ssl.key.location": "kafka.key_file",
}


def _msk_token(region: str) -> Callable[[str], tuple[str, float]]:
    import boto3
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

    region = region or boto3.session.Session().region_name or ""
    if not region:
        raise ConfigurationRefused("kafka.sasl_mechanism AWS_MSK_IAM: no region is known; set aws.region")
    if boto3.session.Session().get_credentials() is None:
        raise ConfigurationRefused(
            "kafka.sasl_mechanism AWS_MSK_IAM: no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached"
        )

    def token(_: str) -> tuple[str, float]:
        value, expiry_ms = MSKAuthTokenProvider.generate_auth_token(region)
        return value, expiry_ms / 1_000

    return token


def is_refusal(error: KafkaError) -> bool:
    """Return whether a person is needed: the broker answers, and will not take it however often it is asked."""
    return error.code() in _REFUSALS


def cause_of(seen: Sequence[KafkaError], last: KafkaError) -> KafkaError:
    """Return the error that says most, of those that a client told of and the one that its call ended with."""
    refusals = (error for error in seen if is_refusal(error))
    others = (error for error in seen if error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._FATAL))
    return next(refusals, None) or next(others, last)


def ask_metadata(client: Any, seen: list[KafkaError], timeout_s: float, *topic: str) -> Any:
    """Return what a client's broker says of its cluster, or of one topic.

    Asks until an answer, the time-out, or what makes one hopeless, which `seen` has by the client's error_cb. Raises
    KafkaException with the cause.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return client.list_topics(*topic, timeout=0.5)
        except KafkaException as error:
            client.poll(0)  # tells of errors
            hopeless = any(is_refusal(one) or one.code() == KafkaError._ALL_BROKERS_DOWN for one in seen)
            if hopeless or time.monotonic() > deadline:
                raise KafkaException(cause_of(seen, error.args[0])) from None


def reason_of(error: KafkaError, settings: KafkaSettings) -> str:
    """Return in one line what an error of a client means, with the fix. No credential stands in it."""
    servers = settings.bootstrap_servers
    text = " ".join(error.str().split())
    match error.code():
        case KafkaError._RESOLVE:
            return f"{servers}: the host's name is not known; mend kafka.bootstrap_servers ({text})"
        case KafkaError._SSL:
            return f"{servers}: {_ssl_reason(text)} ({text})"
        case KafkaError._AUTHENTICATION | KafkaError.SASL_AUTHENTICATION_FAILED:
            return f"{servers}: {_sasl_reason(text, settings)} ({text})"
        case KafkaError._ALL_BROKERS_DOWN | KafkaError._TRANSPORT | KafkaError._TIMED_OUT:
            return f"{servers}: {_away_reason(text, settings)} ({text})"
        case KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return f"this user may not use the topic; allow WRITE, READ and DESCRIBE on it with an ACL ({text})"
        case KafkaError.GROUP_AUTHORIZATION_FAILED:
            return f"this user may not use the group; allow READ on it with an ACL ({text})"
        case KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return f"this user may not write with idempotence; allow IDEMPOTENT_WRITE on the cluster ({text})"
        case KafkaError.MSG_SIZE_TOO_LARGE:
            return f"the broker takes no message of this size; raise max.message.bytes of the topic ({text})"
        case KafkaError.UNKNOWN_TOPIC_OR_PART | KafkaError._UNKNOWN_TOPIC | KafkaError._UNKNOWN_PARTITION:
            return f"the topic is not there; make it, or allow this user CREATE on it ({text})"
        case KafkaError._GAPLESS_GUARANTEE | KafkaError._FATAL:
            return f"{servers}: the broker refused a message, and what was behind it is held back ({text})"
        case KafkaError.INVALID_REPLICATION_FACTOR:
            return f"there are fewer brokers than kafka.replication_factor; lower it, or set it to -1 ({text})"
        case KafkaError.POLICY_VIOLATION:
            return f"the broker's policy does not allow such a topic; make it by hand ({text})"
        case _:
            return f"{servers}: {error.name()} ({text})"


_REFUSALS = frozenset(
    {
        KafkaError._SSL,
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.POLICY_VIOLATION,
    }
)


def _away_reason(text: str, settings: KafkaSettings) -> str:
    if "refused" in text:
        return "nothing listens there; start the broker, or mend kafka.bootstrap_servers"
    if "SSL" in text:
        return (
            f"no TLS is spoken there; mend kafka.security_protocol, which is {settings.security_protocol}, or the port"
        )
    return (
        "no broker answers; look whether it runs and whether kafka.security_protocol, which is "
        f"{settings.security_protocol}, is what is spoken on this port"
    )


def _ssl_reason(text: str) -> str:
    if "verify failed" in text:
        return "its certificate is not signed by who kafka.ca_file names, or not for this host; mend kafka.ca_file"
    return "no TLS is spoken there, or a client certificate is missing; mend kafka.security_protocol or port"


def _sasl_reason(text: str, settings: KafkaSettings) -> str:
    if "supported mechanisms" in text:
        return f"{settings.sasl_mechanism} is not taken on this port; mend kafka.sasl_mechanism or the port"
    if settings.sasl_mechanism == "AWS_MSK_IAM":
        return "the broker does not take these AWS credentials; allow them kafka-cluster:Connect, or mend aws.region"
    return "the broker does not take these credentials; mend BOT_KAFKA__USERNAME and BOT_KAFKA__PASSWORD"
