"""Puts points into a namespace of CloudWatch, within what one call takes. Source: AWS, PutMetricData."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from bot.domain.metrics import Point
from bot.ports import PointsNotTaken, PointsRefused

MOST_POINTS = 1_000
MOST_BYTES = 1_000_000
"""Of the 1 MB that a call may be, with some room left; points are counted as the widest of AWS's protocols has them."""
MOST_VALUES = 150
MOST_DIMENSIONS = 30
LARGEST = 2.0**360

# Nobody waits for it, but a thread must not wait for ever. One attempt: what was not taken is given again.
_CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 1})

logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("boto3").setLevel(logging.WARNING)

_NO_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached; "
    "or switch it off: leave cloudwatch.namespace empty"
)
_CREDENTIALS = frozenset(
    {
        *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"),
        *("ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "MissingAuthenticationToken"),
        *("MissingAuthenticationTokenException", "AuthFailure", "InvalidAccessKeyId", "OptInRequired"),
    }
)
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"})
_BAD_POINTS = ("InvalidParameter", "MissingRequiredParameter", "MissingParameter", "ValidationE")


class CloudWatch:
    """`ports.MetricSink` of one namespace. For one thread at a time.

    An empty `region` or `endpoint_url` is AWS's own way of finding it. Nothing is asked of AWS before the first `put`.
    """

    def __init__(self, namespace: str, region: str, endpoint_url: str) -> None:
        self._namespace = namespace
        self._region = region
        self._endpoint_url = endpoint_url
        self._client: Any = None

    def put(self, points: Sequence[Point]) -> int:
        """Put as many of the first points as one call takes; return how many. Raises PointsNotTaken, PointsRefused."""
        first = points[: _fitting(points)]
        try:
            answer = self._known_client().put_metric_data(
                Namespace=self._namespace, MetricData=[_datum(point) for point in first]
            )
        except exceptions.ClientError as error:
            self._refused(error, len(first))
        except exceptions.ParamValidationError:
            raise PointsRefused(len(first), "CloudWatch: they are no valid points") from None
        except Exception as error:  # the library's parser fails in many ways on an answer that is not AWS's
            self._failed(error)
        # A right answer has no body that would tell it from the page of whoever stands in between.
        if answer["ResponseMetadata"]["HTTPHeaders"].get("content-type", "").startswith("text/html"):
            self._failed(ResponseParserError())
        return len(first)

    @property
    def region(self) -> str:
        """The region that is really used. Raises PointsNotTaken."""
        try:
            return str(self._known_client().meta.region_name)
        except Exception as error:
            self._failed(error)

    def _known_client(self) -> Any:
        if self._client is None:
            self._client = boto3.session.Session().client(
                "cloudwatch",
                region_name=self._region or None,
                endpoint_url=self._endpoint_url or None,
                config=_CONFIG,
            )
        return self._client

    def _refused(self, error: exceptions.ClientError, count: int) -> NoReturn:
        told = error.response.get("Error", {})
        code, status = str(told.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code.startswith(_BAD_POINTS) or status == 413:
            raise PointsRefused(count, f"CloudWatch cannot take them ({code or status})") from None
        if code in _THROTTLED or status == 429:
            self._wrong("too many requests; they are given again")
        if status >= 500:
            self._wrong(f"CloudWatch failed with HTTP {status}; they are given again")
        if code == "RequestExpired" or "ignature expired" in str(told.get("Message", "")):
            self._wrong("the clock of this machine is off, so requests count as expired; synchronise it (chrony, ntpd)")
        if code in _CREDENTIALS:
            self._client = None  # the next call looks for credentials anew
            self._wrong(f"CloudWatch does not accept these AWS credentials ({code}); {_NO_CREDENTIALS}")
        if status == 403 or code.startswith("AccessDenied"):
            self._wrong(
                "access denied; allow cloudwatch:PutMetricData in this namespace to these AWS credentials, or mend them"
            )
        self._wrong(f"CloudWatch refused with {code or f'HTTP {status}'}; mend the namespace, region or permissions")

    def _failed(self, error: Exception) -> NoReturn:
        match error:
            case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
                self._client = None  # a machine that has just been started may get its role a moment later
                kind = "none" if isinstance(error, exceptions.NoCredentialsError) else "only a part"
                self._wrong(f"AWS credentials are needed, {kind} found; {_NO_CREDENTIALS}")
            case exceptions.ProfileNotFound():
                self._wrong("there is no AWS profile of the name in AWS_PROFILE; mend it or unset it")
            case exceptions.NoRegionError():
                self._wrong("no region is known; set aws.region, such as eu-central-1")
            case exceptions.InvalidRegionError():
                self._wrong("aws.region is no region's name; write it as eu-central-1")
            case (
                exceptions.EndpointConnectionError()
                | exceptions.ConnectTimeoutError()
                | exceptions.ProxyConnectionError()
            ):
                self._wrong("CloudWatch cannot be reached; check aws.region, aws.endpoint_url and the network")
            case exceptions.SSLError():
                self._wrong("CloudWatch has no certificate that can be trusted; check aws.endpoint_url and the network")
            case ResponseParserError():
                self._wrong("the answer is not CloudWatch's; check aws.endpoint_url")
            case exceptions.HTTPClientError():
                self._wrong(f"CloudWatch gave no answer ({type(error).__name__}); check the network")
            case exceptions.BotoCoreError():
                self._wrong(f"CloudWatch could not be asked ({type(error).__name__}); {_NO_CREDENTIALS}")
            case ValueError() if self._client is None:
                self._wrong("aws.endpoint_url is no address; write it as http://127.0.0.1:5000")
            case _:
                self._wrong("the answer is not CloudWatch's; check aws.endpoint_url")

    def _wrong(self, text: str) -> NoReturn:
        # `from None`: nothing of the library's, which may have credentials at hand, is chained to what is shown.
        at = f" at {self._endpoint_url}" if self._endpoint_url else f" in {self._region}" if self._region else ""
        raise PointsNotTaken(f"cloudwatch.namespace {self._namespace}{at}: {text}") from None


def _fitting(points: Sequence[Point]) -> int:
    """Return how many of the first points one call takes, at least one."""
    size = 0
    for number, point in enumerate(points[:MOST_POINTS]):
        size += _bytes(point)
        if size > MOST_BYTES and number:
            return number
    return min(len(points), MOST_POINTS)


def _bytes(point: Point) -> int:
    """Return what a point takes at most, as a form of `MetricData.member.1.Values.member.1=...` with all escaped."""
    dimensions = sum(140 + 3 * (len(name) + len(value)) for name, value in point.dimensions)
    return 300 + 3 * len(point.name) + dimensions + 150 * len(point.values)


def _datum(point: Point) -> dict[str, Any]:
    assert len(point.values) == len(point.counts) <= MOST_VALUES
    assert len(point.dimensions) <= MOST_DIMENSIONS
    datum: dict[str, Any] = {
        "MetricName": point.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in point.dimensions],
        "Timestamp": datetime.fromtimestamp(point.time / 1000, UTC),
        "Unit": point.unit,
    }
    values = [max(-LARGEST, min(LARGEST, value)) for value in point.values]
    if point.counts == (1,):
        return {**datum, "Value": values[0]}
    return {**datum, "Values": values, "Counts": [float(count) for count in point.counts]}
