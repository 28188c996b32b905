"""deploy/compose.yaml, as the compose specification and the bot's own settings read it; no engine is here to run it."""

from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from bot.config import Mode, load_settings
from tests.aws.servers import Dynalite, aws_client
from tests.integration.processes import command

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text("utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]


def resolved(document: Any) -> str:
    """Without anchors and merges, which the specification's reader takes for keys."""
    return yaml.dump(document, Dumper=NoAliases)


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def test_it_is_of_the_specification() -> None:
    document = yaml.safe_load(TEXT)
    compose_spec.PyCompose.from_yaml(resolved(document)).validate()
    document["services"]["bot"]["read_olny"] = True
    with pytest.raises(Exception, match="read_olny"):
        compose_spec.PyCompose.from_yaml(resolved(document))


@pytest.mark.parametrize("name", ["bot", "tables"])
def test_a_bot_there_names_its_mode_and_knows_where_all_is(name: str) -> None:
    environment = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
    assert environment["BOT_MODE"] == "demo"
    settings = load_settings({}, None, environment)
    assert settings.mode is Mode.DEMO
    assert settings.store == "dynamodb"
    assert settings.aws.endpoint_url == "http://dynamodb:8000"
    assert settings.kafka.bootstrap_servers == ("kafka:9092" if name == "bot" else "")


def test_the_tables_are_made_before_the_bot_starts(dynalite: Dynalite, table_prefix: str, tmp_path: Path) -> None:
    service = SERVICES["tables"]
    variables = {**service["environment"], "BOT_AWS__ENDPOINT_URL": dynalite.url, "BOT_AWS__TABLE_PREFIX": table_prefix}
    assert service["command"][:3] == ["python", "-m", "bot.main"]
    done = command(*service["command"][3:], cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    client = aws_client("dynamodb", dynalite.url)
    for name in ("Crypto_Table", "Crypto_Trades"):
        assert client.describe_table(TableName=f"{table_prefix}{name}")["Table"]["TableStatus"] == "ACTIVE"


def test_its_services_have_what_the_image_is_promised() -> None:
    for name in ("bot", "tables"):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["volumes"] == ["bot:/data"]
    assert SERVICES["bot"]["depends_on"]["tables"]["condition"] == "service_completed_successfully"


def test_prometheus_asks_the_bot_where_it_listens() -> None:
    environment = SERVICES["bot"]["environment"]
    assert environment["BOT_METRICS__HOST"] == "0.0.0.0"
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"bot:{environment['BOT_METRICS__PORT']}"]}]
    assert "./prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_all_volumes_that_are_mounted_are_declared() -> None:
    declared = set(yaml.safe_load(TEXT)["volumes"])
    mounted = {volume.split(":")[0] for each in SERVICES.values() for volume in each.get("volumes", ())}
    assert {name for name in mounted if not name.startswith(".")} == declared
