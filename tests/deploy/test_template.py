"""deploy/cloudformation.yaml: what cfn-lint says, what it makes, what it refuses, and what a machine does with it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moto.cloudformation.parsing import get_model_map

from bot.config import Mode, load_settings
from tests.aws.servers import aws_client
from tests.deploy.machine import Machine, boot
from tests.deploy.stack import ACCOUNT, DEFAULTS, LEFT_OUT, TEMPLATE, Evaluator, Stack, create, load

ROOT = Path(__file__).parents[2]
LIVE = {"Mode": "live", "RealMoney": "yes-real-money", "Capital": "500", "MaxDailyLoss": "0.05"}
PHONE = {"AlarmEmail": "me@example.org", "AlarmPhone": "+491701234567"}
KAFKA = {"Kafka": "msk-serverless", "SecondAvailabilityZone": "eu-central-1b"}


@pytest.fixture(scope="module")
def stack(moto_url: str) -> Stack:
    return create(moto_url, "bulkhead-live", TablePrefix="live-", **LIVE, **PHONE)


def test_it_is_what_its_parts_say() -> None:
    done = subprocess.run([ROOT / "scripts" / "template", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cfn_lint_has_nothing_to_say() -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([lint, TEMPLATE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_aws_takes_it_without_a_bucket() -> None:
    assert TEMPLATE.stat().st_size <= 51_200


def test_what_moto_does_not_know_is_named() -> None:
    assert {resource["Type"] for resource in load()["Resources"].values()} - set(get_model_map()) == set(LEFT_OUT)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"Mode": "live", "Capital": "500", "MaxDailyLoss": "0.05"}, "RealMoney"),
        ({"Mode": "live", "RealMoney": "yes-real-money", "MaxDailyLoss": "0.05"}, "Capital"),
        ({"Mode": "live", "RealMoney": "yes-real-money", "Capital": "500"}, "MaxDailyLoss"),
        ({"WheelKey": ""}, "WheelKey"),
        ({"Runtime": "container"}, "Image"),
        ({"Kafka": "msk-serverless"}, "SecondAvailabilityZone"),
    ],
)
def test_what_is_half_said_is_refused(parameters: dict[str, str], says: str) -> None:
    (refusal,) = Evaluator(load(), {**DEFAULTS, **parameters}).refusals()
    assert says in refusal


def test_the_mode_has_no_default_and_is_one_of_the_bots() -> None:
    mode = load()["Parameters"]["Mode"]
    assert "Default" not in mode
    assert set(mode["AllowedValues"]) == {each.value for each in Mode} - {"replay"}


@pytest.mark.parametrize("secret", ["BOT_API_KEY=abc", "BOT_FEE=0.001 BOT_API_SECRET=abc"])
def test_no_key_passes_through_a_parameter(secret: str) -> None:
    assert not re.fullmatch(load()["Parameters"]["MoreSettings"]["AllowedPattern"], secret)


def test_what_is_kept_is_kept_when_the_stack_goes() -> None:
    resources = load()["Resources"]
    for name in ("KlineTable", "TradeTable", "Volume"):
        assert resources[name]["DeletionPolicy"] == "Retain"
        assert resources[name]["UpdateReplacePolicy"] == "Retain"
    # What follows moto takes and forgets.
    assert resources["Volume"]["Properties"]["Encrypted"] is True
    for name in ("KlineTable", "TradeTable"):
        backups = resources[name]["Properties"]["PointInTimeRecoverySpecification"]
        assert backups == {"PointInTimeRecoveryEnabled": True}
    ttl = resources["KlineTable"]["Properties"]["TimeToLiveSpecification"]
    assert ttl == {"AttributeName": "expires_at", "Enabled": True}


def test_the_tables_are_the_contracts(stack: Stack) -> None:
    dynamo = stack.client("dynamodb")
    for name, key in (("Crypto_Table", "kline_key"), ("Crypto_Trades", "client_order_id")):
        table = dynamo.describe_table(TableName=f"live-{name}")["Table"]
        assert [each["AttributeName"] for each in table["KeySchema"]] == ["symbol", key]
        assert {each["AttributeType"] for each in table["AttributeDefinitions"]} == {"S"}
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


def test_units_are_bought_where_that_is_wished(moto_url: str) -> None:
    create(moto_url, "units", TablePrefix="units-", BotId="units", Billing="provisioned", WriteUnits="7")
    table = aws_client("dynamodb", moto_url).describe_table(TableName="units-Crypto_Table")["Table"]
    assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 7


def test_nothing_comes_in_and_the_machine_is_closed(stack: Stack) -> None:
    ec2 = stack.client("ec2")
    (group,) = ec2.describe_security_groups(GroupIds=[stack.resources["SecurityGroup"]])["SecurityGroups"]
    assert group["IpPermissions"] == []
    machine = stack.launch_template()
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert machine["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert machine["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert machine["InstanceType"].startswith("t4g.")
    assert "KeyName" not in machine


def test_no_statement_allows_more_than_it_names(stack: Stack) -> None:
    anywhere = set()
    for statement in (*stack.policy("bot"), *stack.policy("machine")):
        assert not any("*" in action for action in actions([statement]))
        if statement["Resource"] == "*" and "Condition" not in statement:
            anywhere |= {action.partition(":")[0] for action in actions([statement])}
    # Those of Systems Manager know no resources.
    assert anywhere == {"ssm", "ssmmessages", "ec2messages"}


def test_alarms_reach_mail_and_phone(stack: Stack) -> None:
    topic = stack.resources["Alarms"]
    subscribed = stack.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert {(each["Protocol"], each["Endpoint"]) for each in subscribed} == {
        ("email", "me@example.org"),
        ("sms", "+491701234567"),
    }
    wanted = json.loads((ROOT / "deploy" / "alarms.json").read_text("utf-8"))
    alarms = stack.client("cloudwatch").describe_alarms(AlarmNamePrefix="bulkhead-live-")["MetricAlarms"]
    made = {alarm["AlarmName"].removeprefix("bulkhead-live-"): alarm for alarm in alarms}
    assert set(made) == {each["name"] for each in wanted}
    for each in wanted:
        alarm = made[each["name"]]
        assert alarm["AlarmActions"] == [topic]
        assert alarm["ActionsEnabled"] is True
        assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == {"bot_id": "bulkhead", "mode": "live"}
        assert (alarm["MetricName"], alarm["Statistic"], alarm["Period"], alarm["EvaluationPeriods"]) == (
            *(each["metric"], each["statistic"], each["period_s"], each["evaluation_periods"]),
        )
        assert (alarm["ComparisonOperator"], alarm["Threshold"], alarm["TreatMissingData"]) == (
            *(each["comparison"], float(each["threshold"]), each["treat_missing_data"]),
        )


def test_log_and_dashboard_are_the_bots_own(stack: Stack) -> None:
    name = stack.resources["LogGroup"]
    (group,) = stack.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    assert group["retentionInDays"] == 30
    body = stack.client("cloudwatch").get_dashboard(DashboardName="bulkhead-live")["DashboardBody"]
    assert "${" not in body
    assert json.loads(body)["widgets"]


@pytest.fixture(scope="module")
def machine(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return boot(stack.user_data(), tmp_path_factory.mktemp("machine"))


def unit(name: str) -> str:
    lines = (ROOT / "deploy" / name).read_text("utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


def test_a_machine_installs_the_wheel_and_starts_the_unit(stack: Stack, machine: Machine) -> None:
    assert machine.status == 0, machine.said
    assert len(stack.user_data()) < 16_384
    assert machine.text("/etc/systemd/system/bulkhead.service") == unit("bulkhead.service")
    order = [
        "aws ec2 attach-volume",
        "mkfs.xfs /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol",
        "mount /var/lib/bulkhead",
        "aws s3 cp s3://releases/bulkhead-0.1.0-py3-none-any.whl",
        "pip install",
        "systemctl enable --now bulkhead",
        "runuser -u bulkhead -- /opt/bulkhead/current/bin/bulkhead status --healthy",
        "cfn-signal --exit-code 0 --stack bulkhead-live --resource Group",
    ]
    found = [next(n for n, call in enumerate(machine.calls) if call.startswith(begin)) for begin in order]
    assert found == sorted(found)
    agent = json.loads(machine.text("/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json"))
    (log,) = agent["logs"]["logs_collected"]["files"]["collect_list"]
    assert log["log_group_name"] == stack.resources["LogGroup"]
    assert f"BOT_LOG__FILE={log['file_path']}" in unit("bulkhead.service")


IAM = {
    "ec2 attach-volume": "ec2:AttachVolume",
    "s3 cp": "s3:GetObject",
    "ecr get-login-password": "ecr:GetAuthorizationToken",
}
"""What commands of the AWS CLI need. Source: AWS, service authorization reference."""


def actions(statements: list[dict[str, Any]]) -> set[str]:
    found = set()
    for statement in statements:
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def asked_of_aws(machine: Machine) -> set[str]:
    return {IAM[" ".join(call.split()[1:3])] for call in machine.calls if call.startswith("aws ")}


def test_a_machine_may_what_it_asks_of_aws(stack: Stack, machine: Machine) -> None:
    asked = asked_of_aws(machine)
    assert asked == {"ec2:AttachVolume", "s3:GetObject"}
    allowed = actions(stack.policy("machine"))
    assert asked <= allowed
    # The rest is Systems Manager's agent and the log's.
    rest = {action.partition(":")[0] for action in allowed - asked}
    assert rest == {"ssm", "ssmmessages", "ec2messages", "logs"}


def test_the_bot_there_has_the_settings_that_were_given(stack: Stack, machine: Machine) -> None:
    environment = machine.environment()
    assert environment.pop("RUN_FLAGS") == "--yes-real-money"
    settings = load_settings({}, None, environment)
    assert settings.mode is Mode.LIVE
    assert str(settings.capital) == "500"
    assert str(settings.max_daily_loss) == "0.05"
    assert settings.store == "dynamodb"
    assert settings.aws.secret_id.startswith(f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:")
    assert settings.cloudwatch.namespace == "Bulkhead"
    assert len(settings.symbols) == 3


def test_a_volume_with_a_book_is_never_made_new(stack: Stack, tmp_path: Path) -> None:
    machine = boot(stack.user_data(), tmp_path / "machine", {"blkid": "exit 0"})
    assert machine.status == 0, machine.said
    assert not [call for call in machine.calls if call.startswith("mkfs")]


@pytest.mark.parametrize("broken", ["pip", "systemctl", "runuser"])
def test_a_machine_that_cannot_be_the_bot_says_so_and_the_update_goes_back(
    stack: Stack, tmp_path: Path, broken: str
) -> None:
    machine = boot(stack.user_data(), tmp_path / "machine", {broken: "exit 1"})
    assert machine.status != 0
    signals = [call for call in machine.calls if call.startswith("cfn-signal")]
    assert [call.split()[2] for call in signals] == ["1"]


def test_a_machine_can_run_the_image_instead(moto_url: str, tmp_path: Path) -> None:
    repository = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
    image = f"{repository}/bulkhead@sha256:0123456789abcdef"
    container = {"Runtime": "container", "Image": image, "ImageRepository": "bulkhead", "Mode": "paper"}
    stack = create(moto_url, "boxed", BotId="boxed", TablePrefix="boxed-", **container)
    machine = boot(stack.user_data(), tmp_path / "machine")
    assert machine.status == 0, machine.said
    assert len(stack.user_data()) < 16_384
    assert machine.text("/etc/systemd/system/bulkhead.service") == unit("bulkhead-container.service")
    assert machine.text("/etc/bulkhead/image.env") == f"IMAGE={image}\n"
    assert f"docker login --username AWS --password-stdin {repository}" in machine.calls
    assert f"docker pull {image}" in machine.calls
    allowed = actions(stack.policy("machine"))
    assert asked_of_aws(machine) == {"ec2:AttachVolume", "ecr:GetAuthorizationToken"}
    assert asked_of_aws(machine) <= allowed
    assert "s3:GetObject" not in allowed
    assert load_settings({}, None, machine.environment()).mode is Mode.PAPER


def test_without_a_machine_nobody_is_woken() -> None:
    evaluator = Evaluator(load(), {**DEFAULTS, "Machines": "0"})
    for alarm in load()["Resources"].values():
        if alarm["Type"] == "AWS::CloudWatch::Alarm":
            assert evaluator.value(alarm["Properties"]["ActionsEnabled"]) is False


def test_kafka_is_off_unless_wished_for() -> None:
    of_kafka = {name for name, each in load()["Resources"].items() if each.get("Condition") == "WithKafka"}
    assert {"Msk", "SecondSubnet", "MskSecurityGroup"} == of_kafka
    assert not Evaluator(load(), DEFAULTS).holds("WithKafka")
    assert Evaluator(load(), {**DEFAULTS, **KAFKA}).holds("WithKafka")
