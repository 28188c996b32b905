"""API keys from AWS Secrets Manager or SSM Parameter Store, by name. No value ever stands in an error.

Source: AWS, GetSecretValue and GetParameters, their errors and the common errors of both services.
"""

import json
import logging
from collections.abc import Callable
from typing import Any, NoReturn

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from bot.ports import ConfigurationRefused, KeysUnavailable

FIELDS = ("api_key", "api_secret")

# A start waits for this: at most three attempts.
_CONFIG = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})

# Asked for nothing less than a debug level it logs replies whole, the keys in them.
logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("boto3").setLevel(logging.WARNING)

_NO_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached; "
    "or set BOT_API_KEY and BOT_API_SECRET instead"
)
_FORM = 'keep a JSON object there: {"api_key": "...", "api_secret": "..."}'
_CREDENTIALS = frozenset(
    {
        *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"),
        *("ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "MissingAuthenticationToken"),
        *("MissingAuthenticationTokenException", "AuthFailure", "InvalidAccessKeyId", "OptInRequired"),
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized"})
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"})
_UNREADABLE = frozenset({"DecryptionFailure", "InvalidKeyId", "KMSAccessDeniedException"})


def keys_from_secret(secret_id: str, region: str, endpoint_url: str) -> tuple[str, str]:
    """Return (key, secret) from a secret of Secrets Manager: a JSON object with `api_key` and `api_secret`.

    `region` and `endpoint_url` may be empty: then they are AWS's own way of finding them.

    Raises ConfigurationRefused where the setting, the credentials or the secret are wrong, KeysUnavailable where the
    service could not be asked.
    """
    place = _Place("secretsmanager", "Secrets Manager", f"aws.secret_id {secret_id}", region, endpoint_url)
    answer = place.ask(
        "secretsmanager:GetSecretValue", "ARN", lambda client: client.get_secret_value(SecretId=secret_id)
    )
    try:
        values = json.loads(answer.get("SecretString") or "")
    except (ValueError, RecursionError):
        raise ConfigurationRefused(f"{place.setting}: the secret is no JSON text; {_FORM}") from None
    if not isinstance(values, dict):
        raise ConfigurationRefused(f"{place.setting}: the secret is no JSON object; {_FORM}")
    for field in FIELDS:
        if not isinstance(values.get(field), str) or not values[field]:
            raise ConfigurationRefused(f"{place.setting}: the secret has no text under {field}; {_FORM}")
    return values["api_key"], values["api_secret"]


def keys_from_parameters(path: str, region: str, endpoint_url: str) -> tuple[str, str]:
    """Return (key, secret) from the SecureString parameters PATH/api_key and PATH/api_secret. Raises as above."""
    path = path.rstrip("/")
    names = [f"{path}/{field}" for field in FIELDS]
    place = _Place("ssm", "SSM Parameter Store", f"aws.ssm_path {path}", region, endpoint_url)
    answer = place.ask(
        "ssm:GetParameters (and kms:Decrypt)",
        "Parameters",
        lambda client: client.get_parameters(Names=names, WithDecryption=True),
    )
    found = {parameter["Name"]: parameter for parameter in answer["Parameters"]}
    for name in names:
        parameter = found.get(name)
        if parameter is None:
            raise ConfigurationRefused(
                f"{place.setting}: there is no parameter {name} {place.where}; make it (SecureString), or mend "
                "aws.ssm_path or aws.region"
            )
        if parameter["Type"] != "SecureString":
            raise ConfigurationRefused(f"{place.setting}: {name} is a {parameter['Type']}; keep it as a SecureString")
        if not parameter["Value"]:
            raise ConfigurationRefused(f"{place.setting}: {name} is empty; put the value there")
    return found[names[0]]["Value"], found[names[1]]["Value"]


class _Place:
    """A service to ask, and what its failures mean for whoever configured it."""

    def __init__(self, service: str, title: str, setting: str, region: str, endpoint_url: str) -> None:
        self._service = service
        self._title = title
        self._region = region
        self._endpoint_url = endpoint_url
        self.setting = setting
        self.where = ""

    def ask(self, action: str, expected: str, question: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Return the answer to a question; `action` is what must be allowed, `expected` what a true answer has."""
        try:
            client = boto3.session.Session().client(
                self._service,
                region_name=self._region or None,
                endpoint_url=self._endpoint_url or None,
                config=_CONFIG,
            )
            self.where = f"in {client.meta.region_name}"
            answer = question(client)
        except exceptions.ClientError as error:
            self._refused(error, action)
        except Exception as error:  # the library's parser fails in many ways on an answer that is not AWS's
            self._failed(error)
        if expected not in answer:
            self._failed(ResponseParserError())
        return answer

    def _refused(self, error: exceptions.ClientError, action: str) -> NoReturn:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "ResourceNotFoundException" and "staging label" in str(error.response["Error"].get("Message", "")):
            self._wrong(f"the secret {self.where} holds nothing yet; {_FORM}")
        if code in ("ResourceNotFoundException", "ParameterNotFound"):
            self._wrong(f"there is no such secret {self.where}; mend aws.secret_id or aws.region")
        if code in _CREDENTIALS:
            self._wrong(f"{self._title} does not accept these AWS credentials ({code}); {_NO_CREDENTIALS}")
        if code in _UNREADABLE:
            self._wrong(f"it cannot be decrypted ({code}); allow kms:Decrypt on its key to these AWS credentials")
        if code in _DENIED or status == 403:
            self._wrong(f"access denied; allow {action} on it to these AWS credentials, or mend them")
        if code in ("InvalidRequestException", "InvalidParameterException", "ValidationException"):
            self._wrong(f"{self._title} cannot give it ({code}): it is no valid name, or the secret is being deleted")
        if code in _THROTTLED or status == 429:
            self._away("refuses for too many requests; wait a minute and start again")
        if status >= 500:
            self._away(f"failed with HTTP {status}; start again")
        self._wrong(f"{self._title} refused with {code or f'HTTP {status}'}; mend the name, region or permissions")

    def _failed(self, error: Exception) -> NoReturn:
        match error:
            case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
                kind = "none" if isinstance(error, exceptions.NoCredentialsError) else "only a part"
                self._wrong(f"AWS credentials are needed, {kind} found; {_NO_CREDENTIALS}")
            case exceptions.ProfileNotFound():
                self._wrong("there is no AWS profile of the name in AWS_PROFILE; mend it or unset it")
            case exceptions.NoRegionError():
                self._wrong("no region is known; set aws.region, such as eu-central-1")
            case exceptions.InvalidRegionError():
                self._wrong("aws.region is no region's name; write it as eu-central-1")
            case exceptions.ParamValidationError():
                self._wrong("it cannot be the name of one; mend it")
            case (
                exceptions.EndpointConnectionError()
                | exceptions.ConnectTimeoutError()
                | exceptions.ProxyConnectionError()
            ):
                self._away("cannot be reached; check aws.region, aws.endpoint_url and the network")
            case exceptions.SSLError():
                self._away("has no certificate that can be trusted; check aws.endpoint_url and the network")
            case exceptions.HTTPClientError():
                self._away(f"gave no answer ({type(error).__name__}); check the network and start again")
            case exceptions.BotoCoreError():
                self._wrong(f"{self._title} could not be asked ({type(error).__name__}); {_NO_CREDENTIALS}")
            case ValueError() if not self.where:
                self._wrong("aws.endpoint_url is no address; write it as http://127.0.0.1:5000")
            case _:
                self._away("gave an answer that is not AWS's; check aws.endpoint_url")

    # `from None`: nothing of the library's, which may have the reply at hand, is chained to what is shown.

    def _wrong(self, text: str) -> NoReturn:
        raise ConfigurationRefused(f"{self.setting}: {text}") from None

    def _away(self, text: str) -> NoReturn:
        at = f" at {self._endpoint_url}" if self._endpoint_url else f" {self.where}"
        raise KeysUnavailable(f"{self.setting}: {self._title}{at} {text}") from None
