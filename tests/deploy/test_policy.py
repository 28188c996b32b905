"""A bot that runs on what the template made, with the settings that its machine gets: what it calls is what it may."""

import json
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.aws.servers import no_credentials_but
from tests.deploy.machine import boot
from tests.deploy.recorder import Call, recording
from tests.deploy.stack import ACCOUNT, Stack, create
from tests.integration.processes import ExchangeProcess, Program, command, wait_until

PREFIX = "policy-"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def grants(statements: Iterable[Mapping[str, Any]]) -> set[Call]:
    """Every single thing that statements allow: none of them has a * in an action or in a part of a resource."""
    found = set()
    for statement in statements:
        assert statement["Effect"] == "Allow"
        conditions = statement.get("Condition", {})
        assert set(conditions) <= {"StringEquals"}
        context = tuple(sorted(conditions.get("StringEquals", {}).items()))
        for action in as_list(statement["Action"]):
            found |= {Call(action, resource, context) for resource in as_list(statement["Resource"])}
    return found


@pytest.mark.slow
def test_what_the_bot_calls_is_all_that_it_may_and_no_more(moto_url: str, tmp_path: Path) -> None:
    with recording(moto_url) as (proxy, calls), ExchangeProcess(tmp_path / "exchange", 7, 500) as exchange:
        more = {
            "BOT_AWS__ENDPOINT_URL": proxy,
            "BOT_CLOUDWATCH__INTERVAL": "10",
            "BOT_BUY_DROP": "0.0002",
            "BOT_SELL_RISE": "0.0002",
            **{name: url for name, url in exchange.settings.items() if "API_KEY" not in name and "SECRET" not in name},
        }
        stack = create(
            moto_url,
            "policy",
            Mode="testnet",
            BotId="policy",
            Symbols="BTCUSDT",
            TablePrefix=PREFIX,
            MoreSettings=" ".join(f"{name}={value}" for name, value in more.items()),
        )
        fill_keys(stack, exchange.ends["api_key"], exchange.ends["api_secret"])
        machine = boot(stack.user_data(), tmp_path / "machine")
        assert machine.status == 0, machine.said
        settings = machine.environment() | no_credentials_but("a", "b", tmp_path)
        settings["BOT_DATA_DIR"] = str(tmp_path / "data")

        def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
            done = command(*arguments, cwd=tmp_path, **settings)
            assert done.returncode == 0, done.stdout + done.stderr
            return done

        with Program("run", cwd=tmp_path, settings=settings) as bot:
            dynamo = stack.client("dynamodb")
            wait_until(lambda: trades_in(dynamo), 60, "a trade in the table")
            wait_until(lambda: any(call.action == "cloudwatch:PutMetricData" for call in calls), 60, "metrics")
            assert json.loads(ask("trades", "--json").stdout)
            assert json.loads(ask("klines", "--json").stdout)
            bot.send(signal.SIGTERM)
            assert bot.ends(15) == 0, bot.said
        ask("check")
        # Others of this run may have put theirs into the same namespace.
        own = [{"Name": "bot_id", "Value": "policy"}]
        assert stack.client("cloudwatch").list_metrics(Namespace="Bulkhead", Dimensions=own)["Metrics"]

    allowed = grants(stack.policy("bot"))
    assert calls - allowed == set(), "called, and the policy does not allow it"
    assert allowed - calls == set(), "allowed, and never called"


def fill_keys(stack: Stack, key: str, secret: str) -> None:
    """What docs/deployment.md has a person do."""
    values = json.dumps({"api_key": key, "api_secret": secret})
    kept = stack.client("secretsmanager").describe_secret(SecretId=f"{stack.name}-keys")
    assert kept["ARN"].startswith(f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:")
    stack.client("secretsmanager").put_secret_value(SecretId=kept["ARN"], SecretString=values)


def trades_in(dynamo: Any) -> list[Any]:
    """The trades in the table; beside them it has one item about the book."""
    items = dynamo.scan(TableName=f"{PREFIX}Crypto_Trades")["Items"]
    return [item for item in items if not item["symbol"]["S"].startswith("#")]
