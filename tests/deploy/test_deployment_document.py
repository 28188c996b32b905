"""docs/deployment.md: its commands are of the template, of AWS's API and of the bot; its table is the price list's."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from bot.app.dynamodb_cost import month_of
from tests.deploy.stack import DEFAULTS, Evaluator, load

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text("utf-8")
FLOWING = " ".join(TEXT.split())
BLOCKS = re.findall(r"^ *```sh\n(.+?)^ *```", TEXT, re.S | re.M)
OF_THE_CLI = {"query", "output"}
"""Options that every command of the AWS CLI has."""
BY_HAND = {("cloudformation", "deploy"), ("s3", "mb"), ("s3", "cp")}
"""Commands of the AWS CLI that are no calls of the API."""


def commands() -> Iterator[list[str]]:
    """The words of every command of AWS, those within $( ) too."""
    text = "\n".join(BLOCKS).replace("\\\n", " ")
    for found in re.finditer(r"\baws (?=[a-z0-9-]+ [a-z0-9-]+)", text):
        depth, end = 0, found.start()
        for end in range(found.start(), len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth < 0 or (depth == 0 and text[end] == "\n"):
                break
        yield shlex.split(re.sub(r"\$\([^)]*\)", "NESTED", text[found.start() : end]))


def overrides() -> Iterator[dict[str, str]]:
    for words in commands():
        if words[1:3] == ["cloudformation", "deploy"]:
            given = words[words.index("--parameter-overrides") + 1 :]
            variables = {"${AWS_REGION}": "us-east-1", "$BUCKET": "bulkhead-releases-1"}
            for variable, value in variables.items():
                given = [word.replace(variable, value) for word in given]
            yield dict(word.split("=", 1) for word in given)


def test_every_block_is_shell() -> None:
    assert len(BLOCKS) > 10
    for block in BLOCKS:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_parameter_is_one_of_the_template_and_accepted() -> None:
    asked = list(overrides())
    assert len(asked) >= 6
    for parameters in asked:
        assert Evaluator(load(), {**DEFAULTS, **parameters}).refusals() == []
    for setting in re.findall(r"`(\w+=[^`]+)`", TEXT):
        parameters = dict(word.split("=", 1) for word in shlex.split(setting) if not word.endswith("=..."))
        if "ACCOUNT" not in setting:
            Evaluator(load(), parameters)


def test_every_call_is_one_of_awss() -> None:
    session = botocore.session.get_session()
    seen = set()
    for words in commands():
        service, operation = words[1:3]
        seen.add((service, operation))
        if (service, operation) in BY_HAND:
            continue
        model = session.get_service_model(service)
        names = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in names, f"aws {service} {operation}"
        shape = model.operation_model(names[operation]).input_shape
        members = {xform_name(member, "-") for member in (shape.members if shape else ())}
        options = {word[2:] for word in words if word.startswith("--")} - OF_THE_CLI
        # A switch is a member that is true.
        assert options <= members, f"aws {service} {operation}: {options - members}"
    assert len(seen) > 8


def test_every_output_that_is_read_is_given() -> None:
    asked = set(re.findall(r"OutputKey=='(\w+)'", TEXT))
    assert asked
    assert asked <= set(load()["Outputs"])


def test_every_command_of_the_bot_exists() -> None:
    asked = set(re.findall(r"/usr/local/bin/bulkhead ([a-z]+)(?: (--[a-z]+))?", TEXT))
    assert {"check", "status", "trades", "halt"} <= {command for command, _ in asked}
    for command, flag in asked:
        done = subprocess.run(
            [sys.executable, "-m", "bot.main", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert flag in done.stdout


def test_the_alarm_that_is_tried_is_there() -> None:
    (name,) = re.findall(r"--alarm-name bulkhead-testnet-([a-z-]+)", TEXT)
    assert name in {alarm["name"] for alarm in json.loads((ROOT / "deploy" / "alarms.json").read_text("utf-8"))}


def cents(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


@pytest.fixture(scope="module")
def prices() -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy" / "prices.json").read_text("utf-8")))


def test_the_bill_is_the_price_lists_and_under_fifteen_dollars(prices: dict[str, Any]) -> None:
    rows = dict(re.findall(r"^\| (.+?) \| \**([\d.]+)\** \|$", TEXT, re.M))
    parameters = load()["Parameters"]
    hours = prices["hours"]
    machine = parameters["InstanceType"]["Default"]
    volumes = parameters["VolumeSize"]["Default"] + 8
    month = month_of(len(parameters["Symbols"]["Default"].split(",")), parameters["Interval"]["Default"], False, 7)
    bill = {
        f"{machine} (1 GiB; the bot takes 0.12)": Decimal(prices["hourly"][machine]) * hours,
        "public IPv4 address": Decimal(prices["hourly"]["public IPv4 address"]) * hours,
        f"{volumes} GB of gp3: system and data": Decimal(prices["monthly"]["gp3 GB"]) * volumes,
        "secret": Decimal(prices["monthly"]["secret"]),
        f"DynamoDB, {Decimal(month.write_units) / 1_000_000:.2f} million writes": month.on_demand,
        "its point-in-time recovery, after a year": month.recovery,
    }
    together = sum(map(cents, bill.values()), Decimal(0))
    assert rows == {what: str(cents(value)) for what, value in bill.items()} | {"**together**": str(together)}
    assert together < 15


def test_what_is_saved_by_closed_candles_only_is_so() -> None:
    saved = month_of(3, "1m", False, 7).on_demand - month_of(3, "1m", True, 7).on_demand
    assert f"`StoreClosedOnly=true` takes {cents(saved)} off" in FLOWING


def test_what_is_free_is_enough(prices: dict[str, Any]) -> None:
    alarms = [each for each in load()["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    assert len(alarms) <= prices["free"]["CloudWatch alarms"]
    assert f"{len(alarms)} alarms" in TEXT
    # A call a minute.
    assert prices["hours"] * 60 <= prices["free"]["CloudWatch PutMetricData calls a month"]


def test_msk_is_as_dear_as_it_says(prices: dict[str, Any]) -> None:
    month = Decimal(prices["hourly"]["MSK Serverless cluster"]) * prices["hours"]
    assert 540 < month < 560
    assert "it costs about 550 dollars a month" in FLOWING
