"""The metrics of a real, running bot: the same numbers for a real Prometheus and in CloudWatch, and whatever hangs."""

import json
import re
import shutil
import socket
import subprocess
import time

import pytest
import requests

from bot.app.control import ask
from bot.domain.metrics import METRICS
from tests.aws.servers import REGION, aws_client, no_credentials_but
from tests.integration.desk import desk
from tests.integration.processes import ROOT, Program, command, wait_until
from tests.support.ports import unused_port

pytestmark = pytest.mark.slow

SAMPLE = re.compile(r"^bulkhead_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
DEPLOYED = ROOT / "deploy" / "prometheus"
HANG_DEADLINE_MS = "60000"


class Scraped:
    """What is served at one moment: `values[name, label, ...]`, the labels of all left out."""

    def __init__(self, port):
        began = time.monotonic()
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60)
        self.took_s = time.monotonic() - began
        assert answer.status_code == 200
        self.text = answer.text
        self.values, self.common = {}, set()
        for name, labels, value in SAMPLE.findall(answer.text):
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            self.common.add((pairs.pop("bot_id"), pairs.pop("mode")))
            self.values[name, *pairs.values()] = float(value)


def scraped_when(port, condition):
    """What is served once a condition holds for the values."""

    def seen():
        found = Scraped(port)
        return found if condition(found.values) else None

    return wait_until(seen, 20, "the values that are waited for")


@pytest.fixture
def cloudwatch(moto_url, tmp_path, table_prefix):
    """Settings by which a bot gives its metrics to moto; the namespace is this test's own."""
    return {
        "BOT_CLOUDWATCH__NAMESPACE": f"Bulkhead/{table_prefix}",
        "BOT_CLOUDWATCH__INTERVAL": "10",
        "BOT_AWS__ENDPOINT_URL": moto_url,
        "BOT_AWS__REGION": REGION,
        **no_credentials_but("a", "b", tmp_path),
    }


def test_what_a_bot_does_is_counted_alike_in_prometheus_and_cloudwatch(tmp_path, moto_url, cloudwatch):
    port = unused_port()
    with desk(tmp_path, **cloudwatch, BOT_METRICS__PORT=str(port)) as at, at.running_bot() as bot:
        began = time.time()
        at.trades("BTCUSDT", "BUY")
        at.fault("error", code=-1013, path="/api/v3/order", method="POST")
        at.refuses("ETHUSDT", "BUY", "REJECTED")
        at.ask("halt")
        at.refuses("DOGEUSDT", "BUY", "NOT_PLACED")
        # The weight is that of this minute, of which a second may be gone.
        seen = scraped_when(
            port, lambda values: values["klines_received_total", "BTCUSDT"] > 5 and values["request_weight", "trading"]
        )
        since_began = time.time() - began

        assert seen.common == {("bulkhead", "testnet")}
        values = seen.values
        assert values["orders_filled_total", "BUY", "BTCUSDT"] == 1
        assert values["orders_rejected_total", "-1013"] == 1
        assert values["orders_rejected_total", "-2010"] == 0
        assert values["orders_unfilled_total", "NOT_PLACED"] == 1
        assert values["orders_sent_total", "BTCUSDT"] == values["orders_sent_total", "ETHUSDT"] == 1
        assert values["orders_sent_total", "DOGEUSDT"] == 0
        assert values["signals_total", "BUY", "DOGEUSDT"] == 1
        assert values["klines_received_total", "BTCUSDT"] > 5
        assert values["tick_to_order_seconds_count", "BTCUSDT"] == 1
        assert 0 < values["tick_to_order_seconds_sum", "BTCUSDT"] < since_began
        assert values["position", "BTCUSDT"] > 0
        assert 0 < values["exposure_ratio", "BTCUSDT"] < 0.2
        assert values["halted",] == values["healthy",] == 1
        assert values["request_weight", "trading"] > 0
        wallet = at.status()
        assert values["equity",] == pytest.approx(float(wallet["equity"]), rel=0.01)
        check_with_promtool(seen.text)
        scrape_once(tmp_path, port)

        client, namespace = aws_client("cloudwatch", moto_url), cloudwatch["BOT_CLOUDWATCH__NAMESPACE"]
        wait_until(lambda: total(client, namespace, "orders_rejected", began) == 1, 25, "the refusal in CloudWatch")
        wait_until(lambda: total(client, namespace, "orders_filled", began) == 1, 25, "the order in CloudWatch")
        wait_until(lambda: total(client, namespace, "klines_received", began) > 15, 25, "klines in CloudWatch")
        series = client.list_metrics(Namespace=namespace)["Metrics"]
        assert {one["MetricName"] for one in series} == {
            # Nothing is published or stored elsewhere, so nothing can wait for it.
            name
            for name, metric in METRICS.items()
            if metric.is_basic and name != "outbox_age_seconds"
        }
        for one in series:
            assert {d["Name"]: d["Value"] for d in one["Dimensions"]} == {"bot_id": "bulkhead", "mode": "testnet"}
        assert all(line["mode"] == "testnet" and line["bot_id"] == "bulkhead" for line in bot.log())
        assert at.live.secret not in bot.said + seen.text


def total(client, namespace, name, began):
    points = client.get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": "bot_id", "Value": "bulkhead"}, {"Name": "mode", "Value": "testnet"}],
        StartTime=began - 600,
        EndTime=began + 600,
        Period=3_600,
        Statistics=["Sum"],
    )["Datapoints"]
    return sum(point["Sum"] for point in points)


def debian(name):
    """A program of Debian's package `prometheus`, which .ci/run installs."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install prometheus")
    return found


def check_with_promtool(text):
    ended = subprocess.run(
        [debian("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def scrape_once(folder, port):
    """Have a real Prometheus scrape a bot, with the alert rules that are deployed."""
    own, place = unused_port(), folder / "prometheus"
    place.mkdir()
    shutil.copy(DEPLOYED / "alerts.yml", place)
    given = (DEPLOYED / "prometheus.yml").read_text()
    (place / "prometheus.yml").write_text(given.replace("bot:9464", f"127.0.0.1:{port}").replace("15s", "1s"))
    server = subprocess.Popen(
        [
            debian("prometheus"),
            f"--config.file={place / 'prometheus.yml'}",
            f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address=127.0.0.1:{own}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def answer(path, **parameters):
            try:
                got = requests.get(f"http://127.0.0.1:{own}/api/v1/{path}", params=parameters, timeout=60)
            except requests.ConnectionError:
                return None
            return got.json()["data"] if got.status_code == 200 else None

        def filled():
            found = answer("query", query='bulkhead_orders_filled_total{symbol="BTCUSDT",side="BUY"}')
            return found["result"] if found else None

        (row,) = wait_until(filled, 20, "the first scrape")
        assert row["value"][1] == "1"
        assert (row["metric"]["mode"], row["metric"]["job"]) == ("testnet", "bulkhead")
        # A machine that stands still for a second costs a scrape.
        wait_until(lambda: answer("query", query='up{job="bulkhead"}')["result"][0]["value"][1] == "1", 20, "it is up")
        (group,) = wait_until(
            lambda: [g for g in answer("rules")["groups"] if all(r["health"] == "ok" for r in g["rules"])], 10, "rules"
        )
        assert len(group["rules"]) == 6
    finally:
        server.terminate()
        server.wait(60)


def test_metrics_are_served_while_every_actor_hangs_and_lines_go_to_the_file(tmp_path):
    port, log = unused_port(), tmp_path / "logs" / "bulkhead.log"
    settings = {
        "BOT_METRICS__PORT": str(port),
        "BOT_HANDLER_DEADLINE_MS": HANG_DEADLINE_MS,
        "BOT_LOG__FILE": str(log),
        "BOT_BOT_ID": "mine",
    }
    data = tmp_path / "data"
    with Program("run", "--allow-chaos", "--data-dir", data, cwd=tmp_path, settings=settings) as bot:
        control = data / "control.sock"
        wait_until(control.exists, 30, "a bot that can be asked")
        scraped_when(port, lambda values: values["klines_received_total", "BTCUSDT"])
        names = [actor["name"] for actor in ask(control, {"command": "status"})["actors"]]
        assert "metrics" in names
        for name in (one for one in names if one != "supervisor"):
            ask(control, {"command": "kill", "name": name, "how": "hang"})
        before = Scraped(port)
        age = ("feed_age_seconds", "BTCUSDT")
        after = scraped_when(port, lambda values: values[age] > before.values[age] + 2)
        wait_until(lambda: Scraped(port).took_s < 2, 20, "an answer within two seconds")
        assert after.values["klines_received_total", "BTCUSDT"] <= before.values["klines_received_total", "BTCUSDT"] + 1
        assert max(value for (name, *_), value in after.values.items() if name == "actor_mailbox") > 0
        bot.kill()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines
    assert {(line["mode"], line["bot_id"]) for line in lines} == {("demo", "mine")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"]) for line in lines)
    assert not any(line.startswith("{") for line in bot.lines)


def test_a_port_in_use_is_one_line_and_the_bot_does_not_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"BOT_METRICS__PORT": str(port)}
        ended = command("run", "--for", "5s", "--data-dir", tmp_path / "data", cwd=tmp_path, **settings)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"metrics.port: cannot listen on 127.0.0.1:{port}: Address already in use; name another" in ended.stderr
    assert "Traceback" not in ended.stderr
