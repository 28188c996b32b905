"""Calls of DynamoDB, and what their failures mean: one line each, with the fix; no secret ever stands in one.

Source: DynamoDB, error handling and common errors; boto3, credentials.
"""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from bot.config import AwsSettings
from bot.ports import StoreBusy, StoreError
from bot.supervision import Clock

CONNECT_TIMEOUT_S = 1.5
READ_TIMEOUT_S = 2.5
PATIENCE_MS = 2_000
"""How long a call is tried again. With the time-outs of its last try that is less than an actor's deadline."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0

# Every retry is ours: botocore's own would neither end in time nor tell a throttle from a broken connection. What is
# sent is made by `items`, so botocore need not look at each value again.
_CONFIG = Config(
    connect_timeout=CONNECT_TIMEOUT_S,
    read_timeout=READ_TIMEOUT_S,
    retries={"mode": "standard", "total_max_attempts": 1},
    parameter_validation=False,
)

# Asked for nothing less than a debug level it logs requests whole, the credentials' signatures in them.
logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("boto3").setLevel(logging.WARNING)

_NO_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_CREDENTIALS = frozenset(
    {
        *("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "IncompleteSignature"),
        *("InvalidSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
        *("AuthFailure", "InvalidAccessKeyId", "OptInRequired", "IncompleteSignatureException"),
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized"})
_THROTTLED = frozenset(
    {
        *("ProvisionedThroughputExceededException", "ThrottlingException", "Throttling", "RequestLimitExceeded"),
        *("TooManyRequestsException", "LimitExceededException", "ReplicatedWriteConflictException"),
    }
)
_NO_TABLE = frozenset({"ResourceNotFoundException", "TableNotFoundException"})
_SKEWED = ("signature not yet current", "signature expired", "is now earlier than")


class ConditionFailed(Exception):
    """A conditional write found another state than its condition."""


class TableMissing(StoreError):
    """There is no such table."""


class Refused(StoreError):
    """DynamoDB refused a call for a reason that has no line of its own; `code` is its name for it."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class Throttled(StoreBusy):
    """DynamoDB takes less a second than it was given."""


class Connection:
    """Calls of the DynamoDB that the settings name. Thread-safe; nothing is asked before the first call."""

    def __init__(self, aws: AwsSettings, clock: Clock, patience_ms: int = PATIENCE_MS) -> None:
        self._aws = aws
        self._clock = clock
        self._patience_ms = patience_ms
        self._lock = threading.Lock()
        self._session: Any = None
        self._client: Any = None
        self._closed = threading.Event()
        self.region = aws.region

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"at {self._aws.endpoint_url}" if self._aws.endpoint_url else f"in {self.region or 'no region'}"

    def open(self) -> None:
        """Make the client; DynamoDB is not asked, but who has the credentials may be. Raises StoreError."""
        try:
            self._connected()
        except StoreError:
            raise
        except Exception as error:
            self._failed(error)

    def ask(self, operation: str, table: str, **parameters: Any) -> dict[str, Any]:
        """Make one call (`put_item`), with `parameters` as DynamoDB's; `table` is what an error names.

        Raises ConditionFailed, Throttled, StoreBusy, TableMissing, StoreError.
        """
        try:
            answer = getattr(self._connected(), operation)(**parameters)
        except exceptions.ClientError as error:
            self._refused(error, operation, table)
        except StoreError:
            raise
        except Exception as error:  # the library's parser fails in many ways on an answer that is not AWS's
            self._failed(error)
        if "json" not in answer["ResponseMetadata"]["HTTPHeaders"].get("content-type", ""):
            self._failed(ResponseParserError())
        return dict(answer)

    def deadline(self) -> int:
        """Return until when a call made now is repeated, on the clock that never goes back."""
        return self._clock.monotonic_ms() + self._patience_ms

    def insist(self, call: Callable[[], Any], deadline_ms: int) -> Any:
        """Repeat a call while it is busy, with growing pauses of random length, until `deadline_ms` is past.

        Raises as `ask`: StoreBusy with the last reason.
        """
        pauses = Pauses()
        reason: StoreBusy | None = None
        while self.has_time(deadline_ms):
            try:
                return call()
            except StoreBusy as error:
                reason = error
            self.pause(pauses.longer(), deadline_ms)
        raise reason or StoreBusy(f"DynamoDB {self.place} is slow: what is left follows")

    def has_time(self, deadline_ms: int) -> bool:
        """Whether another call may begin."""
        return self._clock.monotonic_ms() < deadline_ms and not self._closed.is_set()

    def pause(self, seconds: float, deadline_ms: int) -> None:
        """Wait, but not beyond `deadline_ms` nor for a connection that is closed."""
        left_s = (deadline_ms - self._clock.monotonic_ms()) / 1000
        self._closed.wait(min(seconds, max(left_s, 0)))

    def credentials(self) -> str:
        """Return in words where the credentials come from. Raises StoreError without any."""
        self.open()
        try:
            found = self._session.get_credentials()
        except Exception as error:
            self._failed(error)
        if found is None:
            self._failed(exceptions.NoCredentialsError())
        return str(found.method)

    def close(self) -> None:
        """Let go of the connections; a call that waits to be repeated fails with its reason."""
        self._closed.set()
        self._forget()

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                # A session of its own: sessions are not thread-safe, clients are.
                self._session = boto3.session.Session()
                self._client = self._session.client(
                    "dynamodb",
                    region_name=self._aws.region or None,
                    endpoint_url=self._aws.endpoint_url or None,
                    config=_CONFIG,
                )
                self.region = self._client.meta.region_name
            return self._client

    def _forget(self) -> None:
        """Look for credentials anew at the next call: those that are known are no good."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()

    def _refused(self, error: exceptions.ClientError, operation: str, table: str) -> NoReturn:
        details = error.response.get("Error", {})
        code, message = str(details.get("Code", "")), str(details.get("Message", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        action = "dynamodb:" + "".join(part.capitalize() for part in operation.split("_"))
        if code == "ConditionalCheckFailedException":
            raise ConditionFailed from None
        if code in _THROTTLED or status == 429:
            raise Throttled(
                f"DynamoDB {self.place} takes less a second than it is given ({code}, table {table}): it is tried "
                "again; if it stays so, take aws.billing on_demand, or more aws.write_units"
            ) from None
        if status >= 500:
            raise StoreBusy(f"DynamoDB {self.place} failed with HTTP {status} ({code}): it is tried again") from None
        if code in _NO_TABLE:
            raise TableMissing(
                f"there is no table {table} {self.place}: make it with check --create, or mend aws.region or "
                "aws.table_prefix"
            ) from None
        if code in _EXPIRED:
            self._forget()
            self._wrong(f"the AWS credentials have expired ({code}): renew them (for an SSO profile: aws sso login)")
        if any(words in message.lower() for words in _SKEWED):
            self._wrong(f"this machine's clock is wrong{self._skew(error)}: synchronise it (chrony, ntpd)")
        if code in _CREDENTIALS:
            self._forget()
            self._wrong(f"DynamoDB {self.place} does not accept these AWS credentials ({code}): {_NO_CREDENTIALS}")
        if code in _DENIED or status == 403:
            self._forget()
            self._wrong(f"access denied to table {table} {self.place}: allow {action} on it to these AWS credentials")
        raise Refused(
            f"DynamoDB {self.place} refused {action} on table {table} ({code or f'HTTP {status}'}: "
            f"{' '.join(message.split())[:200]}): compare the table with check",
            code,
        ) from None

    def _failed(self, error: Exception) -> NoReturn:
        match error:
            case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
                self._forget()
                kind = "none" if isinstance(error, exceptions.NoCredentialsError) else "only a part"
                self._wrong(f"AWS credentials are needed, {kind} found: {_NO_CREDENTIALS}")
            case exceptions.ProfileNotFound():
                self._wrong("there is no AWS profile of the name in AWS_PROFILE: mend it or unset it")
            case exceptions.NoRegionError():
                self._wrong("no AWS region is known: set aws.region, such as eu-central-1")
            case exceptions.InvalidRegionError():
                self._wrong("aws.region is no region's name: write it as eu-central-1")
            case (
                exceptions.EndpointConnectionError()
                | exceptions.ConnectTimeoutError()
                | exceptions.ProxyConnectionError()
            ):
                self._away("cannot be reached: check aws.region, aws.endpoint_url and the network")
            case exceptions.SSLError():
                self._away("has no certificate that can be trusted: check aws.endpoint_url and the network")
            case exceptions.HTTPClientError():
                self._away(f"gave no answer ({type(error).__name__}): it is tried again")
            case exceptions.CredentialRetrievalError() | exceptions.TokenRetrievalError():
                self._forget()
                self._wrong(f"AWS credentials could not be fetched ({type(error).__name__}): {_NO_CREDENTIALS}")
            case exceptions.SSOError():
                self._forget()
                self._wrong(f"the AWS login has ended ({type(error).__name__}): renew it with aws sso login")
            case exceptions.BotoCoreError():
                self._wrong(f"DynamoDB could not be asked ({type(error).__name__}): {_NO_CREDENTIALS}")
            case ValueError() if self._client is None:
                self._wrong("aws.endpoint_url is no address: write it as http://127.0.0.1:8000")
            case _:
                self._away(f"gave an answer that is not DynamoDB's ({type(error).__name__}): check aws.endpoint_url")

    def _skew(self, error: exceptions.ClientError) -> str:
        """Return how wrong the clock is by the date of the answer, in words."""
        date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            there_ms = parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp() * 1000
        except ValueError:
            return ""
        offset_s = round((self._clock.now_ms() - there_ms) / 1000)
        return f" by {abs(offset_s)} s, {'ahead' if offset_s > 0 else 'behind'}"

    # `from None`: nothing of the library's, which may have a request at hand, is chained to what is shown.

    def _wrong(self, text: str) -> NoReturn:
        raise StoreError(text) from None

    def _away(self, text: str) -> NoReturn:
        raise StoreBusy(f"DynamoDB {self.place} {text}") from None


class Pauses:
    """Pauses before a repetition: each about twice the last one, of random length, so that many bots do not march."""

    def __init__(self) -> None:
        self._bound_s = _FIRST_PAUSE_S

    def longer(self) -> float:
        """Return the next pause in seconds."""
        bound, self._bound_s = self._bound_s, min(2 * self._bound_s, _LONGEST_PAUSE_S)
        return random.uniform(bound / 2, bound)

    def reset(self) -> None:
        """Begin with the shortest again."""
        self._bound_s = _FIRST_PAUSE_S
