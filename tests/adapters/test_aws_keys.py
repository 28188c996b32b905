"""API keys from Secrets Manager and SSM, over HTTP from a moto server: every failure is one line with the fix."""

import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager

import boto3
import pytest
import requests
from botocore.config import Config

from bot.adapters.aws import keys, keys_from_parameters, keys_from_secret
from bot.ports import ConfigurationRefused, KeysUnavailable
from tests.adapters.servers import CUT, http_server, reply
from tests.support.ports import unused_port

REGION = "eu-central-1"
KEY, SECRET = "KEY" + "k" * 61, "SECRET" + "s" * 58


@contextmanager
def moto(**variables):
    """A moto server as a process of its own; it picks its port and says it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = next(line.split()[-1] for line in process.stderr if "Running on http" in line)
        # What it logs must not fill the pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def aws():
    with moto() as url:
        yield url


@pytest.fixture(autouse=True)
def credentials(monkeypatch, tmp_path):
    """Credentials that moto takes, and none of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    use(monkeypatch, "a", "b")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # A server that has just been started loads a service at its first question, which takes seconds on a busy machine.
    patient = Config(connect_timeout=60, read_timeout=60)
    monkeypatch.setattr("bot.adapters.aws.keys._CONFIG", keys._CONFIG.merge(patient))


def use(monkeypatch, access_key, secret_key):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)


def client(service, url, **credentials):
    return boto3.client(service, region_name=REGION, endpoint_url=url, **credentials)


@pytest.fixture
def keep(aws):
    """Keep a text as a secret, in a service emptied before."""
    requests.post(f"{aws}/moto-api/reset", timeout=60)

    def kept(text, name="bulkhead/testnet"):
        values = {"SecretBinary": text} if isinstance(text, bytes) else {"SecretString": text}
        client("secretsmanager", aws).create_secret(Name=name, **values)

    return kept


@pytest.fixture
def put(aws):
    """Put a parameter into SSM, emptied before."""
    requests.post(f"{aws}/moto-api/reset", timeout=60)

    def parameter(name, value, kind="SecureString"):
        client("ssm", aws).put_parameter(Name=name, Value=value, Type=kind)

    return parameter


def refused(call, *arguments, kind=ConfigurationRefused):
    with pytest.raises(kind) as caught:
        call(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    # Also where a traceback of it was printed.
    whole = "".join(traceback.format_exception(caught.value))
    assert KEY not in whole
    assert SECRET not in whole
    return line


def test_a_secret_gives_both_and_may_hold_more(aws, keep):
    keep(json.dumps({"api_key": KEY, "api_secret": SECRET, "note": 1}))
    assert keys_from_secret("bulkhead/testnet", REGION, aws) == (KEY, SECRET)


@pytest.mark.parametrize("path", ["/bulkhead/testnet", "/bulkhead/testnet/"])
def test_parameters_give_both(aws, put, path):
    put("/bulkhead/testnet/api_key", KEY)
    put("/bulkhead/testnet/api_secret", SECRET)
    assert keys_from_parameters(path, REGION, aws) == (KEY, SECRET)


def test_region_and_credentials_may_be_awss_own(aws, keep, monkeypatch):
    keep(json.dumps({"api_key": KEY, "api_secret": SECRET}))
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert keys_from_secret("bulkhead/testnet", "", aws) == (KEY, SECRET)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "set aws.region" in refused(keys_from_secret, "bulkhead/testnet", "", aws)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SECRET, "no JSON text"),
        (f'["{KEY}", "{SECRET}"]', "no JSON object"),
        ("[" * 100_000, "no JSON text"),
        (json.dumps({"api_key": KEY}), "no text under api_secret"),
        (json.dumps({"api_key": "", "api_secret": SECRET}), "no text under api_key"),
        (json.dumps({"api_key": KEY, "api_secret": {"value": SECRET}}), "no text under api_secret"),
        (SECRET.encode(), "no JSON text"),
    ],
    ids=["text", "array", "deep", "half", "empty", "nested", "binary"],
)
def test_a_secret_of_another_form_is_refused_with_the_form(aws, keep, text, says):
    keep(text)
    line = refused(keys_from_secret, "bulkhead/testnet", REGION, aws)
    assert line.startswith("aws.secret_id bulkhead/testnet: ")
    assert says in line
    assert '{"api_key": "...", "api_secret": "..."}' in line


def test_what_is_not_there_is_named_with_its_region(aws, keep):
    assert f"no such secret in {REGION}" in refused(keys_from_secret, "none", REGION, aws)
    # It is there, elsewhere.
    keep(json.dumps({"api_key": KEY, "api_secret": SECRET}))
    assert "no such secret in us-west-2" in refused(keys_from_secret, "bulkhead/testnet", "us-west-2", aws)


def test_a_secret_that_was_made_and_never_filled(aws):
    client("secretsmanager", aws).create_secret(Name="bulkhead/empty")
    line = refused(keys_from_secret, "bulkhead/empty", REGION, aws)
    assert f'the secret in {REGION} holds nothing yet; keep a JSON object there: {{"api_key"' in line


def test_a_secret_that_is_being_deleted(aws, keep):
    keep(json.dumps({"api_key": KEY, "api_secret": SECRET}))
    client("secretsmanager", aws).delete_secret(SecretId="bulkhead/testnet")
    assert "being deleted" in refused(keys_from_secret, "bulkhead/testnet", REGION, aws)


def test_a_parameter_that_is_missing_is_named(aws, put):
    put("/bulkhead/api_key", KEY)
    line = refused(keys_from_parameters, "/bulkhead", REGION, aws)
    assert f"no parameter /bulkhead/api_secret in {REGION}" in line


def test_a_parameter_in_the_clear_is_refused(aws, put):
    put("/bulkhead/api_key", KEY)
    put("/bulkhead/api_secret", SECRET, "String")
    assert "/bulkhead/api_secret is a String; keep it as a SecureString" in refused(
        keys_from_parameters, "/bulkhead", REGION, aws
    )


def test_no_credentials(aws, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "none found; set AWS_ACCESS_KEY_ID" in refused(keys_from_secret, "x", REGION, aws)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    assert "only a part found; set" in refused(keys_from_secret, "x", REGION, aws)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "AWS_PROFILE" in refused(keys_from_secret, "x", REGION, aws)


@pytest.mark.parametrize(
    ("region", "url", "kind", "says"),
    [
        ("no region", "", ConfigurationRefused, "write it as eu-central-1"),
        (REGION, "127.0.0.1:5000", ConfigurationRefused, "aws.endpoint_url is no address"),
        (REGION, "unused", KeysUnavailable, "cannot be reached; check aws.region, aws.endpoint_url"),
    ],
)
def test_a_place_that_is_none(region, url, kind, says):
    url = f"http://127.0.0.1:{unused_port()}" if url == "unused" else url
    assert says in refused(keys_from_secret, "x", region, url, kind=kind)


def test_an_empty_name_that_boto_refuses(aws):
    assert "it cannot be the name" in refused(keys_from_secret, "", REGION, aws)


def error(code, status=400):
    return reply(json.dumps({"__type": code, "message": f"about {SECRET}"}), status=status)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (error("ThrottlingException"), KeysUnavailable, "too many requests"),
        (error("InternalServiceError", 500), KeysUnavailable, "HTTP 500"),
        (error("ExpiredTokenException"), ConfigurationRefused, "does not accept these AWS credentials"),
        (error("UnrecognizedClientException"), ConfigurationRefused, "does not accept these AWS credentials"),
        (error("DecryptionFailure"), ConfigurationRefused, "allow kms:Decrypt"),
        (error("AccessDeniedException"), ConfigurationRefused, "access denied; allow "),
        (error("SomethingNew"), ConfigurationRefused, "refused with SomethingNew"),
        (reply(f"<html>{SECRET}</html>", status=403), ConfigurationRefused, "access denied"),
        (reply(f"not json {SECRET}"), KeysUnavailable, "not AWS's"),
        (reply(json.dumps([SECRET])), KeysUnavailable, "not AWS's"),
        (CUT, KeysUnavailable, "no answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.parametrize("call", [keys_from_secret, keys_from_parameters])
def test_what_the_service_says(call, answer, kind, says, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pause before it tries again
    with http_server() as server:
        line = refused(call, "/x", REGION, server.on("/", answer).url, kind=kind)
        assert says in line, line
        assert len(server.requests) <= 3


def test_access_denied_and_wrong_credentials_by_iam(monkeypatch):
    """moto with IAM on: the first five calls make the user, then it enforces."""
    with moto(INITIAL_NO_AUTH_ACTION_COUNT="5") as url:
        iam = client("iam", url)
        iam.create_user(UserName="bot")
        made = iam.create_access_key(UserName="bot")["AccessKey"]
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="bot", PolicyName="ssm", PolicyDocument=json.dumps(policy))
        for name, value in (("api_key", KEY), ("api_secret", SECRET)):
            client("ssm", url).put_parameter(Name=f"/b/{name}", Value=value, Type="SecureString")

        use(monkeypatch, made["AccessKeyId"], made["SecretAccessKey"])
        assert keys_from_parameters("/b", REGION, url) == (KEY, SECRET)
        line = refused(keys_from_secret, "bulkhead", REGION, url)
        assert "access denied; allow secretsmanager:GetSecretValue" in line
        use(monkeypatch, made["AccessKeyId"], "wrong")
        # As XML in a JSON service, so that only the status can be read.
        assert "to these AWS credentials, or mend them" in refused(keys_from_parameters, "/b", REGION, url)
        use(monkeypatch, "AKIANOBODY", "wrong")
        assert "to these AWS credentials, or mend them" in refused(keys_from_parameters, "/b", REGION, url)


def test_nothing_is_logged_of_what_comes(aws, keep, caplog):
    keep(json.dumps({"api_key": KEY, "api_secret": SECRET}))
    with caplog.at_level(logging.DEBUG):
        keys_from_secret("bulkhead/testnet", REGION, aws)
    assert KEY not in caplog.text
    assert SECRET not in caplog.text
