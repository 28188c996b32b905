"""Points in CloudWatch, over HTTP from a moto server; what moto takes and AWS does not is refused on the way."""

import gzip
import json
import math
import time

import pytest

from bot.adapters.cloudwatch import CloudWatch
from bot.domain.metrics import BOUNDS_S, Point
from bot.ports import PointsNotTaken, PointsRefused
from tests.adapters.servers import http_server, reply
from tests.aws.fault_proxy import cut_before, fault_proxy, refused, throttled
from tests.aws.servers import REGION, aws_client, no_credentials_but, running_moto
from tests.support.ports import unused_port

COMMON = (("bot_id", "b"), ("mode", "demo"))
NOW = time.time_ns() // 1_000_000


def point(name="equity", values=(1.0,), counts=(1,), dimensions=COMMON, at=NOW, unit="None"):
    return Point(name, unit, dimensions, at, values, counts)


def put_all(sink, points):
    """Put points, as many calls as it takes; return how many each took."""
    taken = []
    while points:
        taken.append(sink.put(points))
        points = points[taken[-1] :]
    return taken


class Limits:
    """What the real CloudWatch refuses, as a fault of the proxy. Source: AWS, PutMetricData."""

    def __init__(self):
        self.calls = []
        self.passes_on = True

    def __call__(self, proxy, request, forward):
        plain = gzip.decompress(request) if request[:2] == b"\x1f\x8b" else request
        call = json.loads(plain)
        self.calls.append(call)
        rows, now = call["MetricData"], time.time()
        values = [value for row in rows for value in (*row.get("Values", ()), row.get("Value", 0))]
        is_right = (
            0 < len(rows) <= 1_000
            and len(plain) <= 1_048_576
            and all(isinstance(value, float | int) and math.isfinite(value) for value in values)
            and all(abs(value) <= 2.0**360 for value in values)
            and all(len(row["Dimensions"]) <= 30 for row in rows)
            and all(0 < len(d["Value"]) <= 1_024 and d["Value"].isascii() for r in rows for d in r["Dimensions"])
            and all(len(row.get("Values", ())) <= 150 for row in rows)
            and all(len(row["Values"]) == len(row["Counts"]) for row in rows if "Values" in row)
            and all(now - 14 * 86_400 < row["Timestamp"] < now + 7_200 for row in rows)
        )
        if not is_right:
            return refused("InvalidParameterValue")(proxy, request, forward)
        return forward(request) if self.passes_on else (200, b"{}")


@pytest.fixture
def namespace(table_prefix):
    return f"Bulkhead/{table_prefix}"


@pytest.fixture
def limits(moto_url, aws_credentials):
    """A CloudWatch that is as strict as the real one."""
    found = Limits()
    with fault_proxy(moto_url) as proxy:
        proxy.fail(found)
        found.url = proxy.url
        yield found


def test_what_is_put_is_there_as_statistics(limits, namespace, moto_url):
    sink = CloudWatch(namespace, REGION, limits.url)
    put_all(
        sink,
        [
            point("klines_received", (7.0,), unit="Count"),
            point("klines_received", (5.0,), unit="Count"),
            point("tick_to_order_seconds", (0.002, 0.005, 0.02), (3, 1, 1), unit="Seconds"),
        ],
    )
    client = aws_client("cloudwatch", moto_url)

    def statistics(name):
        found = client.get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in COMMON],
            StartTime=(NOW - 120_000) / 1000,
            EndTime=(NOW + 120_000) / 1000,
            Period=3_600,
            Statistics=["Sum", "SampleCount", "Maximum", "Minimum"],
        )["Datapoints"]
        return found[0]

    assert statistics("klines_received")["Sum"] == 12
    latency = statistics("tick_to_order_seconds")
    assert (latency["SampleCount"], latency["Minimum"], latency["Maximum"]) == (5, 0.002, 0.02)
    assert latency["Sum"] == pytest.approx(0.031)


def test_no_call_is_larger_than_aws_takes_and_none_is_wasted(limits, namespace):
    limits.passes_on = False  # moto is slow to take as much
    small = [point(f"m{number}") for number in range(1_200)]
    assert put_all(CloudWatch(namespace, REGION, limits.url), small) == [1_000, 200]
    wide = tuple((f"dimension_{number:02}", '"' * 1_000) for number in range(30))
    counts = (1_000_000,) * (len(BOUNDS_S) + 1)
    large = [point(f"m{number}", (*BOUNDS_S, 99.0), counts, wide) for number in range(40)]
    taken = put_all(CloudWatch(namespace, REGION, limits.url), large)
    assert sum(taken) == 40
    assert len(taken) > 1
    assert [row["MetricName"] for call in limits.calls for row in call["MetricData"]] == [
        one.name for one in (*small, *large)
    ]


def test_numbers_beyond_what_aws_keeps_are_cut_to_it(limits, namespace):
    assert CloudWatch(namespace, REGION, limits.url).put([point(values=(1e300,)), point(values=(-1e300,))]) == 2


def test_what_aws_refuses_for_good_is_said_to_be_lost(limits, namespace):
    old = point(at=NOW - 15 * 86_400_000)
    with pytest.raises(PointsRefused, match="CloudWatch cannot take them") as caught:
        CloudWatch(namespace, REGION, limits.url).put([old, point()])
    assert caught.value.count == 2


FAILURES = [
    (throttled("ThrottlingException"), "too many requests; they are given again"),
    (refused("InternalServiceFault", 500), "failed with HTTP 500; they are given again"),
    (refused("ExpiredTokenException"), "does not accept these AWS credentials (ExpiredTokenException)"),
    (refused("InvalidClientTokenId", 403), "does not accept these AWS credentials (InvalidClientTokenId)"),
    (
        refused("AccessDeniedException", 403, "User: arn:aws:iam::1:user/x is not authorized"),
        "access denied; allow cloudwatch:PutMetricData",
    ),
    (
        refused("SignatureDoesNotMatch", 403, "Signature expired: 20261128T100000Z is now earlier than ..."),
        "the clock of this machine is off",
    ),
    (refused("UnknownOperationException", 404), "refused with UnknownOperationException; mend the namespace"),
    (cut_before(), "gave no answer"),
]


def test_a_failure_is_one_line_with_the_fix_and_the_next_call_may_pass(moto_url, namespace, aws_credentials):
    with fault_proxy(moto_url) as proxy:
        sink = CloudWatch(namespace, REGION, proxy.url)
        for fault, said in FAILURES:
            proxy.fail(fault, times=1)
            with pytest.raises(PointsNotTaken) as caught:
                sink.put([point()])
            line = str(caught.value)
            assert line.startswith(f"cloudwatch.namespace {namespace} at {proxy.url}: ")
            assert said in line
            assert "\n" not in line
            assert "arn:" not in line
            assert caught.value.__cause__ is None
        assert len(proxy.calls) == len(FAILURES)
        assert sink.put([point()]) == 1


def test_a_role_that_may_not_is_told_so_by_iam_itself(tmp_path, monkeypatch, namespace, aws_credentials):
    with running_moto(INITIAL_NO_AUTH_ACTION_COUNT="2") as url:
        iam = aws_client("iam", url)
        iam.create_user(UserName="bot")
        key = iam.create_access_key(UserName="bot")["AccessKey"]
        for name, value in no_credentials_but(key["AccessKeyId"], key["SecretAccessKey"], tmp_path).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(PointsNotTaken, match="access denied; allow cloudwatch:PutMetricData"):
            CloudWatch(namespace, REGION, url).put([point()])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
        with pytest.raises(PointsNotTaken, match=r"credentials \(SignatureDoesNotMatch\)|access denied") as caught:
            CloudWatch(namespace, REGION, url).put([point()])
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "url", "unset", "said"),
    [
        ("", "", (), "no region is known; set aws.region"),
        ("nowhere!", "", (), "aws.region is no region's name"),
        (REGION, "", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "AWS credentials are needed, none found"),
        (REGION, "", ("AWS_SECRET_ACCESS_KEY",), "AWS credentials are needed, only a part found"),
        (REGION, "not a url", (), "aws.endpoint_url is no address"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(
    monkeypatch, namespace, aws_credentials, region, url, unset, said
):
    for name in unset:
        monkeypatch.delenv(name)
    with pytest.raises(PointsNotTaken) as caught:
        CloudWatch(namespace, region, url).put([point()])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_without_a_cloudwatch_is_said(namespace, aws_credentials):
    with pytest.raises(PointsNotTaken, match="cannot be reached; check"):
        CloudWatch(namespace, REGION, f"http://127.0.0.1:{unused_port()}").put([point()])
    with http_server() as server:
        server.on("/", reply("<html>hello</html>", Content_Type="text/html; charset=utf-8"))
        with pytest.raises(PointsNotTaken, match="the answer is not CloudWatch's"):
            CloudWatch(namespace, REGION, server.url).put([point()])
