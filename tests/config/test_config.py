"""Settings: the later source wins, and what cannot be used is refused in one line that names the key."""

from decimal import Decimal
from pathlib import Path

import pytest

from bot.app.trading import sizing_parameters
from bot.config import ConfigError, ExchangeSettings, Mode, load_settings


def test_defaults_are_the_contracts() -> None:
    settings = load_settings(environment={})
    assert settings.symbols == ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
    assert (settings.mode, settings.interval, settings.compare_on) == (Mode.DEMO, "1m", "message")
    assert settings.buy_drop == settings.sell_rise == Decimal("0.01")
    assert (settings.fraction, settings.fee, settings.cash) == (Decimal("0.1"), Decimal("0.001"), Decimal(10000))
    assert (settings.max_gap, settings.max_age) == (2, 10)


def test_by_default_orders_are_market_orders_near_a_young_book(tmp_path: Path) -> None:
    sizing = sizing_parameters(load_settings(environment={}))
    assert sizing.max_slippage_bps is None
    limits = sizing.limits
    assert (limits.max_price_deviation, limits.max_quote_age_ms) == (Decimal("0.05"), 15_000)
    assert limits.max_orders_per_minute is None
    file = tmp_path / "bot.toml"
    file.write_text("max_slippage_bps = 12.5\nmax_price_deviation = 0\nmax_orders_per_minute = 4\n")
    sizing = sizing_parameters(load_settings({}, file, {}))
    assert (sizing.max_slippage_bps, sizing.limits.max_orders_per_minute) == (Decimal("12.5"), 4)
    assert sizing.limits.max_price_deviation is None, "0 switches it off"


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('fraction = 0.2\nbuy_drop = 0.02\nsell_rise = 0.03\n[exchange]\nprofile = "us"\n')
    environment = {"BOT_BUY_DROP": "0.04", "BOT_SELL_RISE": "0.05", "BOT_EXCHANGE__REST_URL": "http://h:1"}
    settings = load_settings({"sell_rise": "0.06", "fraction": None}, file, environment)
    assert settings.fraction == Decimal("0.2")
    assert settings.buy_drop == Decimal("0.04")
    assert settings.sell_rise == Decimal("0.06")
    assert (settings.exchange.profile, settings.exchange.rest_url) == ("us", "http://h:1")


def test_a_decimal_of_a_file_keeps_every_digit(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text("fraction = 0.100000000000000005551115123125\n")
    assert str(load_settings({}, file, {}).fraction) == "0.100000000000000005551115123125"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"fraction": "0"}, "fraction"),
        ({"fraction": "1.5"}, "fraction"),
        ({"fraction": "NaN"}, "fraction"),
        ({"fraction": "1_0"}, "fraction"),
        ({"fraction": "1e-2"}, "fraction"),
        ({"buy_drop": "1"}, "buy_drop"),
        ({"sell_rise": "0"}, "sell_rise"),
        ({"fee": "-0.1"}, "fee"),
        ({"cash": "0"}, "cash"),
        ({"max_exposure": "0"}, "max_exposure"),
        ({"max_slippage_bps": "0"}, "max_slippage_bps"),
        ({"max_slippage_bps": "10000"}, "max_slippage_bps"),
        ({"max_price_deviation": "-0.1"}, "max_price_deviation"),
        ({"max_quote_age": "0"}, "max_quote_age"),
        ({"max_orders_per_minute": "0"}, "max_orders_per_minute"),
        ({"symbols": "btcusdt"}, "symbols"),
        ({"symbols": ""}, "symbols"),
        ({"symbols": "BTCUSDT,BTCUSDT"}, "symbols"),
        ({"interval": "7m"}, "interval"),
        ({"mode": "dream"}, "mode"),
        ({"exchange": {"profile": "eu"}}, "exchange.profile"),
        ({"exchange": {"port": "1"}}, "exchange.port"),
        ({"bot_id": "a b"}, "bot_id"),
        ({"fracton": "0.1"}, "fracton"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(values: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{names}") as caught:
        load_settings(values, environment={})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"BOT_A": "2", "BOT_A__B__C": "1"}, r"^a .*no such key"),
        ({"BOT_A__B__C": "1", "BOT_A": "2"}, r"^a .*no such key"),
        ({"BOT_EXCHANGE": "1", "BOT_EXCHANGE__PROFILE": "us"}, r"^exchange: is a section.*BOT_EXCHANGE__PROFILE"),
        ({"BOT_EXCHANGE__PROFILE": "us", "BOT_EXCHANGE": "1"}, r"^exchange: is a section.*BOT_EXCHANGE__PROFILE"),
        ({"BOT_SYMBOLS__X": "1"}, r"^symbols: takes one value.*BOT_SYMBOLS="),
        ({"BOT_STRATEGY__PARAMETERS": "1"}, r"^strategy\.parameters: takes a number under each name"),
        ({"BOT_STRATEGY__PARAMETERS__A__B": "1"}, r"^strategy\.parameters: takes a number under each name"),
        (
            {"BOT_EXCHANGE__ZZZ": "1"},
            r"known in \[exchange\] are profile, rest_url, ws_url, ws_api_url, recv_window_ms$",
        ),
        ({"BOT_": "1"}, "no such key"),
        ({"BOT_FRACTON": "1"}, r"^fracton .*: there is no such key; is it fraction; known are "),
        ({"BOT_EXCHANGE__PROFIL": "us"}, r"^exchange\.profil .*no such key; is it profile; known in "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_the_form_that_a_key_takes_is_said(environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_settings(environment=environment)


def test_a_file_that_takes_a_section_for_a_value_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    for text, says in (
        ("exchange = 1", "is a section"),
        ("[fee]\nx = 1", "takes one value"),
        ("[[exchange]]", "section"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            load_settings({}, file, {})


def test_a_file_may_begin_with_a_byte_order_mark_as_editors_write_it(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_bytes('\ufefffraction = "0.2"\r\n'.encode())
    assert load_settings({}, file, {}).fraction == Decimal("0.2")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fee": "2"}, "fee: '2' is refused: it must be less than 1"),
        (
            {"cloudwatch": {"namespace": "AWS/EC2"}},
            "cloudwatch.namespace: 'AWS/EC2' is refused: it must be letters, digits, or any of . _ / # -, "
            "and not begin with AWS/",
        ),
        ({"cloudwatch": {"interval": 300}}, "cloudwatch.interval: '300' is refused: it must be at most 60"),
        ({"aws": {"region": "Frankfurt!"}}, "aws.region: 'Frankfurt!' is no region's name: write it as eu-central-1"),
        (
            {"aws": {"endpoint_url": "127.0.0.1:8000"}},
            "aws.endpoint_url: '127.0.0.1:8000' is no address: write it as http://127.0.0.1:8000",
        ),
        (
            {"exchange": {"rest_url": "https://api.binance.us/api/v3"}},
            "exchange.rest_url: 'https://api.binance.us/api/v3' is no address: write it as https://api.binance.us",
        ),
        (
            {"exchange": {"rest_url": "wss://api.binance.us"}},
            "exchange.rest_url: 'wss://api.binance.us' is no address: write it as https://api.binance.us",
        ),
        (
            {"market_data": {"rest_url": "http://127.0.0.1:99999"}},
            "market_data.rest_url: 'http://127.0.0.1:99999' is no address: write it as https://api.binance.us",
        ),
        (
            {"market_data": {"ws_url": "ws://[::1"}},
            "market_data.ws_url: 'ws://[::1' is no address: write it as wss://stream.binance.us:9443",
        ),
        (
            {"exchange": {"ws_api_url": "ws-api.binance.us"}},
            "exchange.ws_api_url: 'ws-api.binance.us' is no address: write it as wss://ws-api.binance.us:443/ws-api/v3",
        ),
        (
            {"exchange": {"ws_url": "wss://me:pass@127.0.0.1"}},
            "exchange.ws_url: a name or password in an address is not taken, and would be in every log: leave it out",
        ),
        (
            {"aws": {"endpoint_url": "http://me:pass@127.0.0.1"}},
            "aws.endpoint_url: a name or password in an address is not taken, and would be in every log: leave it out",
        ),
        ({"metrics": {"port": 70000}}, "metrics.port: '70000' is refused: it must be at most 65535"),
        ({"fee": "-1"}, "fee: '-1' is refused: it must be at least 0"),
        ({"cash": "0"}, "cash: '0' is refused: it must be above 0"),
        ({"fraction": "1.5"}, "fraction: '1.5' is refused: it must be at most 1"),
        ({"fee": "abc"}, "fee: 'abc' is not a plain decimal number such as 0.01"),
        ({"fee": True}, "fee: True is not a number such as 0.01"),
        ({"cooldown": "1.5"}, "cooldown: '1.5' is refused: it must be a whole number"),
        ({"compare_on": "z"}, "compare_on: 'z' is refused: it must be 'message' or 'closed'"),
        ({"bot_id": "a.b"}, "bot_id: 'a.b' is refused: it must be 1 to 32 letters, digits, _ or -"),
    ],
)
def test_a_bad_value_is_shown_with_what_it_must_be(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(values, environment={})
    assert str(caught.value) == says


@pytest.mark.parametrize("value", ["", " ", 5, True, ["x"]])
def test_a_data_directory_must_be_named(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^data_dir: .*it must name a directory"):
        load_settings({"data_dir": value}, environment={})


def test_an_unknown_variable_is_refused_and_strangers_are_not() -> None:
    with pytest.raises(ConfigError, match="BOT_FRACTON"):
        load_settings(environment={"BOT_FRACTON": "0.1"})
    load_settings(environment={"PATH": "/bin", "ROBOT_X": "1"})


@pytest.mark.parametrize("text", ["fraction = ", "[exchange", "\xff"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bot.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bot\.toml"):
        load_settings({}, file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_settings({}, tmp_path / "none.toml", {})


def test_secrets_stand_in_no_file_and_in_no_text(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('api_secret = "hush-hush"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings({}, file, {})
    assert "hush-hush" not in str(caught.value)
    settings = load_settings({}, None, {"BOT_API_SECRET": "hush-hush", "BOT_API_KEY": "key-key"})
    assert "hush-hush" not in repr(settings)
    assert "key-key" not in f"{settings}"
    with pytest.raises(ConfigError) as caught:
        load_settings({}, None, {"BOT_API_SECRET__X": "hush-hush"})
    assert "hush-hush" not in str(caught.value)
    assert "BOT_API_SECRET=..." in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_settings({"api_secret": ["hush-hush"]}, None, {})
    assert "hush-hush" not in str(caught.value)


def test_each_mode_has_its_own_directory() -> None:
    assert load_settings({"mode": "paper"}, environment={}).directory == Path("data/paper")
    assert load_settings({"mode": "paper", "data_dir": "x"}, environment={}).directory == Path("x")


def test_klines_from_a_broker_need_one_and_a_mode_without_a_market_of_its_own() -> None:
    kafka = {"BOT_MARKET_DATA__SOURCE": "kafka", "BOT_MODE": "paper"}
    with pytest.raises(ConfigError, match=r"^market_data.source is kafka: name the broker in kafka.bootstrap_servers$"):
        load_settings(environment=kafka)
    kafka["BOT_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:9092"
    assert load_settings(environment=kafka).takes_klines_of_its_topics
    assert not load_settings(environment=kafka | {"BOT_MARKET_DATA__TOPIC_PREFIX": "x."}).takes_klines_of_its_topics
    with pytest.raises(ConfigError, match=r"^market_data.topic_prefix: 'a b' is refused"):
        load_settings(environment=kafka | {"BOT_MARKET_DATA__TOPIC_PREFIX": "a b"})
    with pytest.raises(ConfigError, match="demo has a market of its own"):
        load_settings(environment=kafka | {"BOT_MODE": "demo"})


@pytest.mark.parametrize(
    ("rest", "stream", "ws_api"),
    [
        ("https://api.binance.com", "wss://stream.binance.com:9443", "wss://ws-api.binance.com:443/ws-api/v3"),
        ("http://127.0.0.1:8000/", "ws://[::1]:9000/", "ws://localhost/ws-api/v3?returnRateLimits=false"),
    ],
)
def test_addresses_of_an_exchange_are_taken_as_they_are(rest: str, stream: str, ws_api: str) -> None:
    where = {"rest_url": rest, "ws_url": stream, "ws_api_url": ws_api}
    assert load_settings({"exchange": where}, None, {}).exchange == ExchangeSettings(**where)
