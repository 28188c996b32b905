"""What is deployed beside the bot to watch it names metrics that there are, as its tools understand it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bot.app.metering import common_labels
from bot.config import load_settings
from bot.domain.metrics import METRICS, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
STATISTICS = {
    Kind.COUNTER: {"Sum"},
    Kind.GAUGE: {"Average", "Maximum", "Minimum"},
    Kind.DISTRIBUTION: {"p50", "p90", "p99", "Maximum"},
}


@pytest.fixture
def promtool():
    """Where Debian's package `prometheus` is; .ci/run installs it."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is missing: apt-get install prometheus")

    def run(*arguments):
        ended = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


def test_alarms_read_what_is_always_sent():
    alarms = json.loads((DEPLOY / "alarms.json").read_text())
    assert {alarm["name"] for alarm in alarms} == {
        *("no-klines", "actor-quarantined", "daily-loss", "outbox-growing", "order-rejects"),
    }
    for alarm in alarms:
        metric = METRICS[alarm["metric"]]
        assert metric.is_basic
        assert alarm["statistic"] in STATISTICS[metric.kind]
    (no_klines,) = [alarm for alarm in alarms if alarm["name"] == "no-klines"]
    assert no_klines["period_s"] * no_klines["evaluation_periods"] == 120
    assert no_klines["treat_missing_data"] == "breaching"


def test_the_dashboard_shows_each_basic_metric_of_one_bot():
    text = (DEPLOY / "dashboard.json").read_text()
    assert set(re.findall(r"\$\{([^}]*)\}", text)) == {"AWS::Region", "Namespace", "BotId", "Mode"}
    rows = [row for widget in json.loads(text)["widgets"] for row in widget["properties"].get("metrics", ())]
    dimensions = [part for name, _ in common_labels(load_settings({}, environment={})) for part in (name, None)]
    for namespace, name, *found, options in rows:
        assert namespace == "${Namespace}"
        assert found[::2] == dimensions[::2]
        assert options["stat"] in STATISTICS[METRICS[name].kind]
    assert {row[1] for row in rows} == {name for name, metric in METRICS.items() if metric.is_basic}


def test_cloudwatch_takes_the_dashboard(moto_url, aws_credentials):
    from tests.aws.servers import aws_client

    aws_client("cloudwatch", moto_url).put_dashboard(
        DashboardName="bulkhead", DashboardBody=(DEPLOY / "dashboard.json").read_text()
    )


def test_alert_rules_are_valid_and_read_what_is_served(promtool):
    rules = DEPLOY / "prometheus" / "alerts.yml"
    assert "6 rules found" in promtool("check", "rules", rules)
    promtool("test", "rules", Path(__file__).parent / "alerts.yml")
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    served = {f"bulkhead_{name}{'_total' if metric.kind is Kind.COUNTER else ''}" for name, metric in METRICS.items()}
    named = set(re.findall(r"\bbulkhead_\w+", rules.read_text()))
    assert named
    assert named <= served


def test_the_agent_reads_json_lines_by_their_own_time():
    ((files,),) = [
        (kind["collect_list"],)
        for kind in json.loads((DEPLOY / "cloudwatch-agent.json").read_text())["logs"]["logs_collected"].values()
    ]
    (one,) = files
    assert one["file_path"] == "/var/log/bulkhead/bulkhead.log"
    assert one["log_group_name"] == "/bulkhead/bot"
    assert (one["timestamp_format"], one["timezone"]) == ("%Y-%m-%dT%H:%M:%S.%f", "UTC")


def test_the_document_lists_every_metric_as_it_is():
    text = (DEPLOY.parent / "docs" / "monitoring.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*) \| (yes|) \| (.*) \|$", text, re.MULTILINE)
    assert listed == [
        (m.name, m.kind.value, ", ".join(m.labels), "yes" if m.is_basic else "", m.text) for m in METRICS.values()
    ]
