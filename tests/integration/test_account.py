"""The bot as a process on an account of an exchange: whose keys and book, what they may do, and real money's gates."""

import json
import shutil
import signal

import boto3
import pytest

from bot.app.account import account_name
from tests.adapters.test_aws_keys import moto
from tests.aws.servers import REGION, aws_client, no_credentials_but
from tests.integration.processes import ExchangeProcess, Program, command, told, wait_until

pytestmark = pytest.mark.slow
LIMITS = {"BOT_CAPITAL": "500", "BOT_MAX_DAILY_LOSS": "0.05"}
EAGER = {"BOT_BUY_DROP": "0.0002", "BOT_SELL_RISE": "0.0002"}
LIVE = ("run", "--mode", "live", "--yes-real-money", "--data-dir", "data")
TESTNET = ("run", "--mode", "testnet", "--data-dir", "data")
BRIEFLY = ("--for", "1s")


@pytest.fixture(scope="module")
def any_exchange(tmp_path_factory, request):
    profile = getattr(request, "param", "com")
    with ExchangeProcess(tmp_path_factory.mktemp(profile), 7, 100, "--profile", profile) as exchange:
        exchange.profile = profile
        yield exchange


both_profiles = pytest.mark.parametrize("any_exchange", ["com", "us"], indirect=True)


@pytest.fixture
def exchange(any_exchange):
    """The exchange with the key's rights as they should be."""
    any_exchange.post("/sim/account", enableWithdrawals=False, canTrade=True)
    return any_exchange


@pytest.fixture
def settings(exchange):
    return {**exchange.settings, "BOT_EXCHANGE__PROFILE": exchange.profile}


def identity(tmp_path):
    return json.loads((tmp_path / "data" / "identity.json").read_text())


def refused(ended, *fragments, status=2):
    assert "Traceback" not in ended.stderr
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (status, "", 1), ended.stderr
    assert all(fragment in ended.stderr for fragment in fragments), ended.stderr


@both_profiles
def test_live_says_what_it_may_spend_then_trades_and_stops(tmp_path, settings, exchange):
    with Program(*LIVE, cwd=tmp_path, settings={**settings, **LIMITS, **EAGER}) as bot:
        wait_until(lambda: bot.events("trade"), 30, "a trade")
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    said = "".join(bot.errors)
    for part in (
        "keys from the environment; may trade and may not withdraw",
        f"REAL MONEY: mode live on {exchange.profile} at {settings['BOT_EXCHANGE__REST_URL']}, account ",
        "capital = 500 USDT",
        "fraction = 0.1 of that, 50 USDT",
        "max_exposure = 1, 500 USDT",
        "max_daily_loss = 0.05, 25 USDT",
        "orders of BTCUSDT, ETHUSDT, DOGEUSDT",
    ):
        assert part in said, said
    assert {line["mode"] for line in bot.log()} == {"live"}
    trades = told("trades", "--data-dir", "data", cwd=tmp_path)
    fills = {fill["clientOrderId"] for fill in exchange.state()["fills"]}
    assert {trade["client_order_id"] for trade in trades} <= fills
    assert sum(float(trade["quote_quantity"]) for trade in trades if trade["side"] == "BUY") <= 500
    name = identity(tmp_path)["account"]
    assert name.startswith("uid ") == (exchange.profile == "com")
    assert f"account {name}" in said


def test_live_is_refused_gate_by_gate(tmp_path, settings):
    keyless = {name: value for name, value in settings.items() if "API_" not in name.replace("WS_API_", "")}
    refused(command("run", "--mode", "live", cwd=tmp_path, **keyless), "--yes-real-money")
    refused(command(*LIVE, cwd=tmp_path, **keyless), "BOT_API_KEY", "aws.secret_id")
    refused(command(*LIVE, cwd=tmp_path, **settings), "capital:")
    refused(command(*LIVE, cwd=tmp_path, **settings, BOT_CAPITAL="500"), "max_daily_loss:")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "rights", "says"),
    [
        (LIVE, {"enableWithdrawals": True}, "the API key may withdraw"),
        (TESTNET, {"enableWithdrawals": True}, "the API key may withdraw"),
        (TESTNET, {"canTrade": False}, "the account may not trade"),
    ],
    ids=["live, withdraw", "testnet, withdraw", "testnet, trade"],
)
def test_rights_that_refuse_a_start(tmp_path, exchange, settings, arguments, rights, says):
    exchange.post("/sim/account", **rights)
    orders = len(exchange.state()["orders"])
    refused(command(*arguments, cwd=tmp_path, **settings, **LIMITS), says)
    assert not (tmp_path / "data" / "identity.json").exists()
    checked = command("check", "--mode", "testnet", "--data-dir", "data", cwd=tmp_path, **settings)
    assert (checked.returncode, f"wrong permissions: {says}" in checked.stdout) == (1, True), checked.stdout
    assert len(exchange.state()["orders"]) == orders


def test_rights_that_the_exchange_does_not_tell_are_said(tmp_path, exchange, settings):
    def unknown():
        exchange.fault("reply", status=404, body="<html>not here</html>", path="/sapi/v1/account/apiRestrictions")

    unknown()
    ended = command(*TESTNET, *BRIEFLY, cwd=tmp_path, **settings)
    assert (ended.returncode, "the exchange does not tell whether this key may withdraw" in ended.stderr) == (0, True)
    unknown()
    ended = command(*LIVE[:-1], "live", *BRIEFLY, cwd=tmp_path, **settings, **LIMITS)
    assert (ended.returncode, "warning, the exchange does not tell" in ended.stderr) == (0, True), ended.stderr


def test_check_names_source_rights_and_limits(tmp_path, settings):
    checked = command("check", "--mode", "live", "--data-dir", "data", cwd=tmp_path, **settings, **LIMITS)
    assert checked.returncode == 0, checked.stdout
    for line in (
        "ok    keys: from the environment, accepted, ",
        "ok    permissions: may trade and may not withdraw",
        "ok    limits: capital = 500, max_daily_loss = 0.05",
    ):
        assert line in checked.stdout
    assert "wrong limits: capital:" in command("check", "--mode", "live", cwd=tmp_path, **settings).stdout


@both_profiles
def test_a_book_named_by_its_key_goes_on(tmp_path, exchange, settings):
    assert command(*TESTNET, *BRIEFLY, cwd=tmp_path, **settings).returncode == 0
    by_exchange = identity(tmp_path)
    by_key = {**by_exchange, "account": account_name(None, settings["BOT_API_KEY"])}
    file = tmp_path / "data" / "identity.json"
    file.write_text(json.dumps(by_key))
    assert command(*TESTNET, *BRIEFLY, cwd=tmp_path, **settings).returncode == 0
    assert identity(tmp_path) == by_exchange
    file.write_text(json.dumps({**by_key, "account": account_name(None, "another key")}))
    refused(command(*TESTNET, *BRIEFLY, cwd=tmp_path, **settings), "same account with a new API key", str(file.name))


def test_a_new_key_of_the_same_account_takes_book_and_tables_along(tmp_path, dynalite, table_prefix):
    with ExchangeProcess(tmp_path / "us", 7, 100, "--profile", "us") as exchange:
        aws = no_credentials_but("a", "b", tmp_path)
        places = {"REGION": REGION, "ENDPOINT_URL": dynalite.url, "TABLE_PREFIX": table_prefix}
        aws |= {"BOT_STORE": "dynamodb", **{f"BOT_AWS__{name}": value for name, value in places.items()}}
        tables = aws_client("dynamodb", dynalite.url)

        def settings():
            return {**exchange.settings, **aws, "BOT_EXCHANGE__PROFILE": "us"}

        def owner():
            told = tables.scan(TableName=f"{table_prefix}Crypto_Trades", ConsistentRead=True)["Items"]
            return [item["account"]["S"] for item in told if "account" in item]

        def runs_on_its_tables(name):
            with Program(*TESTNET, cwd=tmp_path, settings=settings()) as bot:
                wait_until(lambda: owner() == [name], 60, "the tables' owner by its name")
                bot.send(signal.SIGTERM)
                assert bot.ends(15) == 0, bot.said
            checked = command("check", "--mode", "testnet", "--data-dir", "data", cwd=tmp_path, **settings())
            assert "ok    tables' book: a testnet book of bulkhead, us@127.0.0.1" in checked.stdout

        command("check", "--create", cwd=tmp_path, **settings())
        first = account_name(None, exchange.settings["BOT_API_KEY"])
        runs_on_its_tables(first)
        exchange.change_key()
        second = account_name(None, exchange.settings["BOT_API_KEY"])
        refused(command(*TESTNET, cwd=tmp_path, **settings()), f'"account": "{second}"')
        file = tmp_path / "data" / "identity.json"
        file.write_text(file.read_text().replace(first, second))
        checked = command("check", "--mode", "testnet", "--data-dir", "data", cwd=tmp_path, **settings())
        assert "ok    tables' book: a testnet book of bulkhead, us@127.0.0.1" in checked.stdout
        klines = command("klines", "--json", "--data-dir", "data", cwd=tmp_path, **settings())
        assert "another bot's" not in klines.stderr
        runs_on_its_tables(second)


def test_keys_from_aws(tmp_path, settings, monkeypatch):
    keys = {"api_key": settings.pop("BOT_API_KEY"), "api_secret": settings.pop("BOT_API_SECRET")}
    credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    with moto() as url:
        place = {"region_name": "eu-central-1", "endpoint_url": url}
        boto3.client("secretsmanager", **place).create_secret(Name="bulkhead", SecretString=json.dumps(keys))
        for name, value in keys.items():
            boto3.client("ssm", **place).put_parameter(Name=f"/bulkhead/{name}", Value=value, Type="SecureString")
        file = tmp_path / "bot.toml"
        for line, source in (
            ('secret_id = "bulkhead"', "keys from Secrets Manager, bulkhead"),
            ('ssm_path = "/bulkhead"', "keys from SSM Parameter Store, /bulkhead"),
        ):
            file.write_text(f'[aws]\nregion = "eu-central-1"\nendpoint_url = "{url}"\n{line}\n')
            ended = command(*TESTNET, *BRIEFLY, cwd=tmp_path, **settings)
            assert (ended.returncode, source in ended.stderr) == (0, True), ended.stderr
            assert (
                source.replace("keys ", "ok    keys: ")
                in command("check", "--mode", "testnet", cwd=tmp_path, **settings).stdout
            )
            shutil.rmtree(tmp_path / "data")
        given = {"BOT_API_KEY": keys["api_key"], "BOT_API_SECRET": keys["api_secret"]}
        ended = command(*TESTNET, *BRIEFLY, cwd=tmp_path, **settings, **given)
        assert "keys from the environment, aws.ssm_path is not asked" in ended.stderr
    refused(command(*TESTNET, "--data-dir", "new", cwd=tmp_path, **settings), "cannot be reached", url, status=1)
