"""AWS MSK IAM without AWS: the form of the token that the signer makes, and what is said without region or keys."""

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from bot.adapters.kafka.client import client_config
from bot.config import KafkaSettings
from bot.ports import ConfigurationRefused

SETTINGS = KafkaSettings(bootstrap_servers="b:9098", security_protocol="sasl_ssl", sasl_mechanism="AWS_MSK_IAM")


@pytest.fixture(autouse=True)
def no_aws(tmp_path, monkeypatch):
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def test_a_token_is_a_signed_request_to_connect_for_a_quarter_of_an_hour(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "an example")
    config = client_config(SETTINGS, "eu-central-1")
    assert config["sasl.mechanism"] == "OAUTHBEARER"
    assert "sasl.password" not in config
    token, expiry_s = config["oauth_cb"]("")
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc) == ("https", "kafka.eu-central-1.amazonaws.com")
    assert (query["Action"], query["X-Amz-Expires"]) == ("kafka-cluster:Connect", "900")
    assert query["X-Amz-Credential"].startswith("AKIDEXAMPLE/")
    assert query["X-Amz-Credential"].endswith("/eu-central-1/kafka-cluster/aws4_request")
    assert "an example" not in token
    assert 1_700_000_000 < expiry_s < 4_000_000_000, "in seconds, as librdkafka has it"


def test_a_region_that_nobody_names_is_missed():
    with pytest.raises(ConfigurationRefused, match=r"^kafka.sasl_mechanism AWS_MSK_IAM: no region .*; set aws.region$"):
        client_config(SETTINGS)


def test_credentials_that_nobody_has_are_missed():
    with pytest.raises(ConfigurationRefused, match="no AWS credentials were found; set AWS_ACCESS_KEY_ID"):
        client_config(SETTINGS, "eu-central-1")
