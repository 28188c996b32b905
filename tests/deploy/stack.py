"""deploy/cloudformation.yaml, made in moto: what moto knows by CloudFormation, the rest by the services themselves."""

import ast
import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml

from tests.aws.servers import REGION, aws_client

TEMPLATE = Path(__file__).parents[2] / "deploy" / "cloudformation.yaml"
ACCOUNT = "123456789012"
LEFT_OUT = {
    "AWS::CloudWatch::Alarm": "moto has no such resource in CloudFormation; made by PutMetricAlarm",
    "AWS::SecretsManager::Secret": "moto has no such resource in CloudFormation; made by CreateSecret",
    "AWS::SNS::Subscription": "moto has no such resource in CloudFormation; made by Subscribe",
    "AWS::MSK::ServerlessCluster": "moto has none, and it is off by default; read by cfn-lint alone",
}
DEFAULTS = {
    "Mode": "demo",
    "WheelBucket": "releases",
    "WheelKey": "bulkhead-0.1.0-py3-none-any.whl",
    "AvailabilityZone": f"{REGION}a",
}


def load() -> dict[str, Any]:
    """The template, functions in their long form."""
    return dict(json.loads(json.dumps(cfn_yaml.load(str(TEMPLATE)))))


class Evaluator:
    """What a value of the template is with these parameters, as far as parameters alone decide it."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
        known = template["Parameters"]
        unknown = set(parameters) - set(known)
        assert not unknown, f"the template has no parameter {unknown}"
        self._template = template
        self._names = {name: str(parameters.get(name, known[name].get("Default", ""))) for name in known}
        for name, value in self._names.items():
            allowed, pattern = known[name].get("AllowedValues"), known[name].get("AllowedPattern")
            assert name not in parameters or allowed is None or value in map(str, allowed), f"{name}: {value}"
            assert pattern is None or re.fullmatch(pattern, value), f"{name}: {value}"

    def know(self, **names: str) -> None:
        """Give names of resources their values."""
        self._names |= names

    def value(self, of: Any) -> Any:
        """Evaluate."""
        if isinstance(of, list):
            return [self.value(each) for each in of]
        if not isinstance(of, dict):
            return of
        if len(of) == 1:
            ((function, given),) = of.items()
            match function:
                case "Ref":
                    return self._names[given]
                case "Condition":
                    return self.holds(given)
                case "Fn::Sub":
                    return re.sub(r"\$\{([\w:]+)\}", lambda found: self._names[found[1]], given)
                case "Fn::If":
                    return self.value(given[1] if self.holds(given[0]) else given[2])
                case "Fn::Equals":
                    one, other = self.value(given)
                    return str(one) == str(other)
                case "Fn::Not":
                    return not self.value(given[0])
                case "Fn::And":
                    return all(self.value(given))
                case "Fn::Or":
                    return any(self.value(given))
        return {key: self.value(each) for key, each in of.items()}

    def holds(self, condition: str) -> bool:
        return bool(self.value(self._template["Conditions"][condition]))

    def refusals(self) -> list[str]:
        """What the template's rules say against these parameters."""
        return [
            assertion["AssertDescription"]
            for rule in self._template["Rules"].values()
            if self.value(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self.value(assertion["Assert"])
        ]


@dataclass(frozen=True)
class Stack:
    """What was made."""

    url: str
    name: str
    evaluator: Evaluator
    resources: Mapping[str, str]

    def client(self, service: str) -> Any:
        return aws_client(service, self.url)

    def policy(self, name: str) -> list[dict[str, Any]]:
        """The statements of one of the role's policies."""
        role = self.resources["Role"]
        document = self.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        # moto gives a document that had a condition in it as Python would print it.
        document = ast.literal_eval(document) if isinstance(document, str) else document
        return [statement for statement in document["Statement"] if statement is not None]

    def launch_template(self) -> dict[str, Any]:
        found = self.client("ec2").describe_launch_template_versions(LaunchTemplateId=self.resources["Template"])
        return dict(found["LaunchTemplateVersions"][0]["LaunchTemplateData"])

    def user_data(self) -> str:
        return base64.b64decode(self.launch_template()["UserData"]).decode()


def create(url: str, name: str, **parameters: str) -> Stack:
    """Make the template's stack with these parameters; those that must be given have a value for tests."""
    template, given = load(), {**DEFAULTS, **parameters}
    evaluator = Evaluator(template, given)
    assert evaluator.refusals() == []
    evaluator.know(**{"AWS::StackName": name, "AWS::Region": REGION, "AWS::AccountId": ACCOUNT})
    apart = {logical: resource for logical, resource in template["Resources"].items() if resource["Type"] in LEFT_OUT}
    for logical in apart:
        del template["Resources"][logical]
    keys = apart["Keys"]
    if evaluator.holds(keys["Condition"]):
        description = evaluator.value(keys["Properties"]["Description"])
        secret = aws_client("secretsmanager", url).create_secret(Name=f"{name}-keys", Description=description)["ARN"]
        evaluator.know(Keys=secret)
        # So that who names it finds it.
        template["Parameters"]["Keys"], given["Keys"] = {"Type": "String"}, secret
    else:
        del template["Outputs"]["KeysSecret"]
    cloudformation = aws_client("cloudformation", url)
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    assert cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    made = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    resources = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made if each.get("ResourceType")}
    evaluator.know(**resources)
    for resource in apart.values():
        if "Condition" in resource and not evaluator.holds(resource["Condition"]):
            continue
        properties = evaluator.value(resource["Properties"])
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            properties["Threshold"] = float(properties["Threshold"])
            aws_client("cloudwatch", url).put_metric_alarm(**properties)
        elif resource["Type"] == "AWS::SNS::Subscription":
            aws_client("sns", url).subscribe(**properties)
    return Stack(url, name, evaluator, resources)
