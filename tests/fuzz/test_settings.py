"""bot.toml, variables and arguments: settings in their ranges, or one line that says what is wrong."""

import contextlib
import io
import json
from decimal import Decimal

import pytest

from bot.cli.parser import _parser
from bot.config import ConfigError, Settings, load_settings
from tests.fuzz.garbage import ODD_TEXTS, cases, nearly, odd

pytestmark = pytest.mark.timeout(7200)

SECRET = "S3cr3tS3cr3tS3cr3t"
TOML = {
    "mode": '"testnet"',
    "bot_id": '"bulkhead"',
    "symbols": '["BTCUSDT", "ETHUSDT"]',
    "interval": '"1m"',
    "buy_drop": "0.01",
    "sell_rise": "0.02",
    "fraction": "0.1",
    "max_exposure": "1",
    "capital": "500",
    "max_daily_loss": "0.05",
    "cooldown": "60",
    "max_gap": "2",
    "data_dir": '"data/x"',
    "on_quarantine": '"hold"',
    "exchange": '{profile = "us", recv_window_ms = 3000, rest_url = "http://127.0.0.1:1"}',
    "market_data": '{profile = "com"}',
    "aws": '{region = "eu-central-1", secret_id = "bulkhead"}',
    "strategy": '{path = "bot.domain.scalping:Scalping", parameters = {window = 5}}',
}
ODD_TOML = (
    *("nan", "inf", "-inf", "1e400", "1_000", "-1", "0", "0x10", "1979-05-27", "07:32:00", "true", "[]", "{}", "[[1]]"),
    *('""', "'''a\nb'''", "9" * 5000, "1." + "0" * 5000 + "1", "[" * 500 + "]" * 500, '"\\u0000"', '["BTCUSDT", 5]'),
    *("{a = {b = {c = 1}}}", '"NaN"', '"1_000"', '"1e-5"', '"\u0663"', "-0.0", "1e-400", "''"),
)


def assert_in_range(settings):
    assert 0 < settings.fraction <= 1
    assert 0 < settings.sell_fraction <= 1
    assert 0 < settings.buy_drop < 1
    assert settings.sell_rise > 0
    assert 0 <= settings.fee < 1
    assert 0 <= settings.slippage < 1
    assert settings.cash > 0
    assert settings.max_exposure > 0
    assert settings.capital is None or settings.capital > 0
    assert settings.max_daily_loss is None or 0 < settings.max_daily_loss <= 1
    numbers = [value for name in Settings.model_fields if isinstance(value := getattr(settings, name), Decimal)]
    assert all(number.is_finite() for number in numbers)
    assert settings.symbols
    assert len(set(settings.symbols)) == len(settings.symbols)


def loaded(**given):
    """Whether settings came of it; else the refusal is one short line."""
    try:
        settings = load_settings(**given)
    except ConfigError as error:
        line = str(error)
    else:
        assert_in_range(settings)
        return True
    assert line
    assert SECRET not in line
    assert len(line.splitlines()) == 1, line
    assert len(line) < 1000, line
    return False


def test_no_file_does_harm(tmp_path):
    file = tmp_path / "bot.toml"
    outcomes = set()
    for number, random in cases(0.06, "toml"):
        values = {key: TOML[key] for key in random.sample(list(TOML), random.randrange(len(TOML)))}
        for _ in range(random.choice((0, 1, 1, 2))):
            values[random.choice(["nonsense", "api_key", *TOML])] = random.choice(ODD_TOML)
        text = "\n".join(f"{key} = {value}" for key, value in values.items())
        data = nearly("", random) if random.random() < 0.02 else text.encode("utf-8", "surrogatepass")
        if random.random() < 0.2:
            at = random.randrange(len(data) + 1)
            data = data[:at] + random.randbytes(random.randrange(4)) + data[at + random.randrange(3) :]
        file.write_bytes(data)
        try:
            outcomes.add(loaded(config_file=file, environment={}))
        except Exception as error:
            raise AssertionError(f"case {number}: {data[:2000]!r}") from error
    assert outcomes == {True, False}


NAMES = [f"BOT_{name.upper()}" for name in Settings.model_fields] + [
    *(
        "BOT_EXCHANGE__PROFILE",
        "BOT_EXCHANGE__REST_URL",
        "BOT_AWS__SSM_PATH",
        "BOT_AWS__REGION",
        "BOT_MARKET_DATA__PROFILE",
    ),
    *("BOT_STRATEGY__PARAMETERS__WINDOW", "BOT___X", "BOT_", "BOT_EXCHANGE__", "BOT_A__B__C", "BOT_SYMBOLS__X"),
]
GOOD = ("0.5", "1", "BTCUSDT", "1m", "testnet", "us", "5", "/a/b", "closed", "60")


def test_no_variable_does_harm_or_shows_a_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = set()
    for number, random in cases(0.04, "environment"):
        names = random.sample(NAMES, random.randrange(1, 4))
        variables = {name: random.choice(random.choice((GOOD, ODD_TEXTS))) for name in names}
        variables["BOT_API_SECRET"] = SECRET + random.choice(("", *ODD_TEXTS))
        try:
            outcomes.add(loaded(environment=variables))
        except Exception as error:
            raise AssertionError(f"case {number}: {variables!r}") from error
    assert outcomes == {True, False}


PARSER = _parser()
COMMANDS = (
    "run",
    "backtest",
    "replay",
    "sweep",
    "simulator",
    "actors",
    "halt",
    "why",
    "trades",
    "status",
    "check",
    "x",
)
FLAGS = (
    *("--mode", "--symbols", "--interval", "--config", "--data-dir", "--for", "--json", "--port", "--seed", "--speed"),
    *(
        "--cash",
        "--fee",
        "--fraction",
        "--buy-drop",
        "--filters",
        "--how",
        "--yes-real-money",
        "--help",
        "--",
        "-",
        "-x",
    ),
)


def parse(words):
    """The arguments as parsed, or the status with which the program would end; then it has said why in one line."""
    said = io.StringIO()
    status = None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            return PARSER.parse_args(words)
        except SystemExit as end:
            status = end.code
    assert status in (0, 2)
    assert status == 0 or said.getvalue().count("\n") == 1, said.getvalue()
    assert len(said.getvalue()) < 2_000
    return status


def test_no_argument_does_harm(tmp_path, monkeypatch):
    """Every line of arguments parses, or is refused with status 2 and one line; the values become settings likewise."""
    monkeypatch.chdir(tmp_path)
    for number, random in cases(0.04, "arguments"):
        words = [random.choice(COMMANDS)]
        for _ in range(random.randrange(5)):
            words.append(random.choice(random.choice((FLAGS, FLAGS, GOOD, ODD_TEXTS))))
        try:
            parsed = parse(words)
        except Exception as error:
            raise AssertionError(f"case {number}: {words!r}") from error
        if isinstance(parsed, int):
            continue
        flags = {name: getattr(parsed, name, None) for name in ("mode", "symbols", "interval", "data_dir")}
        loaded(flags=flags, environment={})


def test_any_values_as_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, random in cases(0.02, "flags"):
        flags = {name: odd(random) for name in random.sample(list(Settings.model_fields), 3)}
        try:
            loaded(flags=flags, environment={})
        except Exception as error:
            raise AssertionError(f"case {number}: {json.dumps(flags, default=str)[:2000]}") from error
