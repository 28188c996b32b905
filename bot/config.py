"""Settings: `bot.toml`, then the environment, then flags; the only reader of both. Source: contract, section 6.

An unknown key or a bad value is refused with one line that names it and the fix. Secrets come from the environment, or
from AWS by name (`aws.secret_id`, `aws.ssm_path`).
"""

import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from bot.domain.kline import INTERVALS_MS

DEFAULT_CONFIG_FILE = Path("bot.toml")


class ConfigError(ValueError):
    """A setting that cannot be used; the text is one line that names the key and the fix.

    A text that holds what was given is made one line, and cut where that is very long.
    """

    def __init__(self, text: str) -> None:
        line = " ".join(text.split())
        super().__init__(line if len(line) <= _LINE_CHARS else f"{line[: _LINE_CHARS // 2]} ... {line[-200:]}")


class Mode(StrEnum):
    DEMO = "demo"
    PAPER = "paper"
    TESTNET = "testnet"
    LIVE = "live"
    REPLAY = "replay"


_SHOWN_CHARS = 60
_LINE_CHARS = 900


def _shown(value: object) -> str:
    """Return a value that was given as it may stand in a one-line message."""
    text = repr(value if isinstance(value, str | bool | list | tuple) else str(value))
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


_DECIMAL = re.compile(r"-?\d{1,30}(\.\d{1,30})?", re.ASCII)


def _decimal(value: object) -> object:
    """Take a decimal from its text; a float of TOML came as text too (`parse_float`), so no digit is lost."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{_shown(value)} is not a number such as 0.01")
    text = str(value)
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a plain decimal number such as 0.01")
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{_shown(text)} is not a number") from error


Number = Annotated[Decimal, BeforeValidator(_decimal)]


def _topic_prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", value):
        raise ValueError(f"{_shown(value)} is refused: it must be letters, digits, dots, _ or -")
    return value


TopicPrefix = Annotated[str, AfterValidator(_topic_prefix)]


def _address(schemes: tuple[str, str], example: str, value: str, has_path: bool = False) -> str:
    """Take nothing, or an address like the example; one with a password in it is not shown: it would be logged."""
    if not value:
        return value
    if "@" in value:
        raise ValueError("a name or password in an address is not taken, and would be in every log: leave it out")
    try:
        parts = urlsplit(value)
        is_one = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number or too large, or brackets that do not close
        is_one = False
    if not is_one or (not has_path and (parts.path.strip("/") or parts.query or parts.fragment)):
        raise ValueError(f"{_shown(value)} is no address: write it as {example}")
    return value


_HTTP, _WS = ("http", "https"), ("ws", "wss")
_WS_API = "wss://ws-api.binance.us:443/ws-api/v3"
RestAddress = Annotated[str, AfterValidator(partial(_address, _HTTP, "https://api.binance.us"))]
StreamAddress = Annotated[str, AfterValidator(partial(_address, _WS, "wss://stream.binance.us:9443"))]
WsApiAddress = Annotated[str, AfterValidator(partial(_address, _WS, _WS_API, has_path=True))]
AwsAddress = Annotated[str, AfterValidator(partial(_address, _HTTP, "http://127.0.0.1:8000", has_path=True))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ExchangeSettings(_Section):
    """Where orders go. Empty URLs are those of the profile."""

    profile: Literal["com", "us"] = "com"
    rest_url: RestAddress = ""
    ws_url: StreamAddress = ""
    ws_api_url: WsApiAddress = ""
    recv_window_ms: int = Field(default=3000, ge=100, le=60000)


class MarketDataSettings(_Section):
    """Where klines come from; empty means the trading exchange's profile.

    With the source kafka they come from the broker that `kafka` names, from topics that begin with `topic_prefix`;
    without one from `kafka.topic_prefix`, and then they are not published again.
    """

    source: Literal["exchange", "kafka"] = "exchange"
    topic_prefix: TopicPrefix | None = None
    profile: Literal["", "com", "us"] = ""
    rest_url: RestAddress = ""
    ws_url: StreamAddress = ""


class AwsSettings(_Section):
    """Where API keys are kept, if not in the environment; an empty `region` or `endpoint_url` is AWS's own choice.

    `secret_id` names a secret of Secrets Manager, `ssm_path` is what stands before /api_key and /api_secret in SSM.
    `table_prefix` stands before the names of the DynamoDB tables. They are made by `billing`: pay a request, or so
    many write and read units a second in each table.
    """

    region: str = ""
    endpoint_url: AwsAddress = ""
    secret_id: str = ""
    ssm_path: str = ""
    table_prefix: str = ""
    billing: Literal["on_demand", "provisioned"] = "on_demand"
    write_units: int = Field(default=5, ge=1, le=40_000)
    read_units: int = Field(default=5, ge=1, le=40_000)
    # What may wait on disk for DynamoDB while it takes nothing; beyond it the oldest open klines go.
    outbox_bytes: int = Field(default=2_000_000_000, ge=1_000_000)

    @field_validator("region")
    @classmethod
    def _check_region(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
            raise ValueError(f"{_shown(value)} is no region's name: write it as eu-central-1")
        return value

    @field_validator("table_prefix")
    @classmethod
    def _check_table_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,200}", value):
            raise ValueError(f"{_shown(value)} is refused: it must be letters, digits, dots, _ or -")
        return value

    @field_validator("ssm_path")
    @classmethod
    def _check_ssm_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[A-Za-z0-9_.-]+){1,14}/?", value):
            raise ValueError(f"{_shown(value)} is refused: write it as /bulkhead/live")
        return value


class TopicSettings(_Section):
    """How a topic is made where it is absent; one that is there is left as it is.

    Compaction keeps the last message of a key: of klines that is one a symbol, so nothing could be rebuilt of them.
    """

    partitions: int = Field(default=3, ge=1, le=1000)
    # -1: for ever.
    retention_hours: int = Field(default=-1, ge=-1, le=876_000)
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"


class RecentTopicSettings(TopicSettings):
    """A topic whose messages are of use for some weeks."""

    retention_hours: int = Field(default=720, ge=-1, le=876_000)


class EventTopicSettings(RecentTopicSettings):
    """One partition: events of all actors in one order."""

    partitions: int = Field(default=1, ge=1, le=1000)


class KafkaSettings(_Section):
    """The broker; empty `bootstrap_servers` is none: what would be published stays in the process.

    `username` and `password` come from the environment only (BOT_KAFKA__USERNAME, BOT_KAFKA__PASSWORD). With
    AWS_MSK_IAM the credentials are AWS's own, in `aws.region`. `replication_factor` -1 is the broker's default.
    """

    bootstrap_servers: str = ""
    topic_prefix: TopicPrefix = ""
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM"] = ""
    username: SecretStr = SecretStr("")
    password: SecretStr = SecretStr("")
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    linger_ms: int = Field(default=1, ge=0, le=1_000)
    replication_factor: int = Field(default=-1, ge=-1, le=10)
    # What may wait on disk for a broker that is away; beyond it the oldest open klines go.
    outbox_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    klines: RecentTopicSettings = RecentTopicSettings()
    trades: TopicSettings = TopicSettings()
    actor_events: EventTopicSettings = EventTopicSettings()

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_bootstrap_servers(cls, value: str) -> str:
        value = ",".join(part.strip() for part in value.split(",")) if value.strip() else ""
        for part in value.split(",") if value else ():
            host, _, port = part.rpartition(":")
            right = re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host) and re.fullmatch(
                r"\d{1,5}", port, re.ASCII
            )
            if not right or not 0 < int(port) < 65536:
                raise ValueError(f"{_shown(part)} is refused: write it as host:port, such as 127.0.0.1:9092")
        return value

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        sasl = self.security_protocol.startswith("sasl")
        if sasl and not self.sasl_mechanism:
            raise ValueError(f"sasl_mechanism is missing: security_protocol is {self.security_protocol}")
        if self.sasl_mechanism and not sasl:
            raise ValueError(
                f"security_protocol is {self.security_protocol}, which has no sasl_mechanism; set it to sasl_ssl"
            )
        if self.sasl_mechanism == "AWS_MSK_IAM" and self.security_protocol != "sasl_ssl":
            raise ValueError("AWS_MSK_IAM needs security_protocol sasl_ssl")
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file belong together; set both or none")
        if self.ca_file and not self.security_protocol.endswith("ssl"):
            raise ValueError(f"security_protocol is {self.security_protocol}, which uses no ca_file; set it to ssl")
        if sasl and self.sasl_mechanism != "AWS_MSK_IAM" and self.bootstrap_servers:
            for name in ("username", "password"):
                if not getattr(self, name).get_secret_value():
                    raise ValueError(f"{name} is missing: set BOT_KAFKA__{name.upper()}")
        return self


class CloudWatchSettings(_Section):
    """Metrics in CloudWatch, in `aws.region`; an empty `namespace` switches it off.

    `basic` are the ten series that alarms and dashboard need: AWS keeps ten for nothing, each further one costs 0.30
    dollars a month. `full` are all, about a hundred for three symbols. Every `interval` seconds a call: a million a
    month are free, then 0.01 dollars a thousand.
    """

    namespace: str = ""
    detail: Literal["basic", "full"] = "basic"
    interval: int = Field(default=60, ge=10, le=60)

    @field_validator("namespace")
    @classmethod
    def _check_namespace(cls, value: str) -> str:
        if value and (not re.fullmatch(r"[A-Za-z0-9._/#-]{1,255}", value) or value.startswith("AWS/")):
            raise ValueError(
                f"{_shown(value)} is refused: it must be letters, digits, or any of . _ / # -, and not begin with AWS/"
            )
        return value


class MetricsSettings(_Section):
    """Metrics for Prometheus at http://HOST:PORT/metrics; with port 0 they are not served."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)


class LogSettings(_Section):
    """Where `run` writes its lines, JSON: to `file`, which is renamed when it is full; empty: to standard output.

    On a terminal it shows the live view, and lines go to `bulkhead.log` in the data directory where no file is named.
    """

    file: Path | None = None


class StrategySettings(_Section):
    """`path` is `package.module:Class`; `parameters` are its keyword arguments, beside buy_drop and sell_rise."""

    path: str = "bot.domain.scalping:Scalping"
    parameters: dict[str, Number] = Field(default_factory=dict)


class Settings(_Section):
    """Everything that can be configured; names and ranges are the contract's."""

    mode: Mode = Mode.DEMO
    bot_id: str = "bulkhead"
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
    interval: str = "1m"
    data_dir: Path | None = None
    compare_on: Literal["message", "closed"] = "message"
    buy_drop: Number = Field(Decimal("0.01"), gt=0, lt=1)
    sell_rise: Number = Field(Decimal("0.01"), gt=0)
    fraction: Number = Field(Decimal("0.1"), gt=0, le=1)
    sell_fraction: Number = Field(Decimal("1"), gt=0, le=1)
    max_exposure: Number = Field(Decimal("1"), gt=0)
    cash: Number = Field(Decimal("10000"), gt=0)
    fee: Number = Field(Decimal("0.001"), ge=0, lt=1)
    slippage: Number = Field(Decimal("0"), ge=0, lt=1)
    capital: Number | None = Field(None, gt=0)
    stop_loss: Number | None = Field(None, gt=0, lt=1)
    take_profit: Number | None = Field(None, gt=0)
    cooldown: int = Field(0, ge=0)
    max_daily_loss: Number | None = Field(None, gt=0, le=1)
    max_slippage_bps: Number | None = Field(None, gt=0, lt=10000)
    # A fraction; 0 switches it off.
    max_price_deviation: Number = Field(Decimal("0.05"), ge=0)
    max_quote_age: int = Field(15, ge=1)
    max_orders_per_minute: int | None = Field(None, ge=1)
    max_gap: int = Field(2, ge=1)
    max_age: int = Field(10, ge=1)
    keep_open_klines_days: int = Field(7, ge=1)
    on_quarantine: Literal["limits", "sell", "hold"] = "limits"
    # Below ten seconds, so that a hung actor runs again within them; above what an order call may take.
    handler_deadline_ms: int = Field(8_000, ge=100)
    # Seconds: a stream silent for that long is replaced in any case; how old a connection may get (the exchange's own
    # limit is a day).
    feed_silence: int = Field(30, ge=3)
    stream_life: int = Field(85_800, ge=10, le=86_400)
    simulator_seed: int | None = None
    # Where history is read: beside history.db, which is always written, DynamoDB has it too.
    store: Literal["sqlite", "dynamodb"] = "sqlite"
    store_closed_only: bool = False
    api_key: SecretStr = SecretStr("")
    api_secret: SecretStr = SecretStr("")
    exchange: ExchangeSettings = ExchangeSettings()
    market_data: MarketDataSettings = MarketDataSettings()
    aws: AwsSettings = AwsSettings()
    kafka: KafkaSettings = KafkaSettings()
    cloudwatch: CloudWatchSettings = CloudWatchSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    strategy: StrategySettings = StrategySettings()

    @field_validator("bot_id")
    @classmethod
    def _check_bot_id(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", value):
            raise ValueError(f"{_shown(value)} is refused: it must be 1 to 32 letters, digits, _ or -")
        return value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _check_data_dir(cls, value: object) -> object:
        # An empty path would be the working directory.
        named = isinstance(value, Path) or (isinstance(value, str) and value.strip() and "\0" not in value)
        if value is not None and not named:
            raise ValueError(f"{_shown(value)} is refused: it must name a directory, such as data/demo")
        return value

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("symbols")
    @classmethod
    def _check_symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [s for s in value if not re.fullmatch(r"[A-Z0-9]{3,20}", s)]
        if wrong or not value:
            raise ValueError(f"{_shown(wrong) if wrong else 'no symbol'}: write symbols as BTCUSDT,ETHUSDT")
        if len(set(value)) != len(value):
            raise ValueError(f"{_shown(','.join(value))}: a symbol stands there twice; name each once")
        return value

    @field_validator("interval")
    @classmethod
    def _check_interval(cls, value: str) -> str:
        if value not in INTERVALS_MS:
            raise ValueError(f"{_shown(value)} is not one of {', '.join(INTERVALS_MS)}")
        return value

    @model_validator(mode="after")
    def _check_market_data(self) -> Self:
        if self.market_data.source == "kafka":
            if not self.kafka.bootstrap_servers:
                raise ValueError("market_data.source is kafka: name the broker in kafka.bootstrap_servers")
            if self.mode is Mode.DEMO:
                raise ValueError("market_data.source is kafka: demo has a market of its own; take another mode")
        return self

    @property
    def takes_klines_of_its_topics(self) -> bool:
        """Whether its klines come from the topics that it publishes on."""
        prefix = self.market_data.topic_prefix
        return self.market_data.source == "kafka" and prefix in (None, self.kafka.topic_prefix)

    @property
    def directory(self) -> Path:
        """The data directory: each mode has its own unless one is named."""
        return self.data_dir if self.data_dir is not None else Path("data") / self.mode.value


_SECRET_KEYS = ("api_key", "api_secret", "kafka.username", "kafka.password")


def load_settings(
    flags: Mapping[str, Any] | None = None,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Merge file, environment and flags (the later wins) and check them.

    `config_file` None takes `bot.toml` where it exists. Flags with the value None were not given.

    Raises ConfigError, one line.
    """
    environment = os.environ if environment is None else environment
    values = _from_file(config_file)
    for secret in _SECRET_KEYS:
        *sections, key = secret.split(".")
        holder: Any = values
        for section in sections:
            holder = holder.get(section) if isinstance(holder, Mapping) else None
        if isinstance(holder, Mapping) and key in holder:
            variable = "BOT_" + secret.replace(".", "__").upper()
            raise ConfigError(
                f"{config_file or DEFAULT_CONFIG_FILE}: {secret} must not stand in a file; set {variable}"
            )
    _check_forms(values, Settings)
    _merge(values, _from_environment(environment))
    _merge(values, {key: value for key, value in (flags or {}).items() if value is not None})
    _check_forms(values, Settings)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None and not DEFAULT_CONFIG_FILE.exists():
        return {}
    path = path or DEFAULT_CONFIG_FILE
    try:
        # Some editors begin a file with a byte order mark, which TOML has no place for.
        return tomllib.loads(path.read_text("utf-8-sig"), parse_float=str)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give an existing file with --config") from None
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: bytes, digits and brackets without end
        raise ConfigError(f"{path}: no valid TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith("BOT_"):
            continue
        one: dict[str, Any] = {}
        target = one
        *sections, key = name.removeprefix("BOT_").lower().split("__")
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
        # Each by itself: what two of a name would become together depends on which comes first.
        _check_forms(one, Settings)
        _merge(values, one)
    return values


def _check_forms(values: Mapping[str, Any], model: type[BaseModel], path: tuple[str, ...] = ()) -> None:
    """Refuse keys that `model` has not, and a value where a section belongs or the other way round.

    Raises ConfigError, which never shows a value.
    """
    for key, value in values.items():
        here = (*path, key)
        name, variable = ".".join(here), "BOT_" + "__".join(here).upper()
        field = model.model_fields.get(key)
        if field is None:
            where = f"in [{'.'.join(path)}] " if path else ""
            known = ", ".join(model.model_fields)
            near = "".join(f"; is it {one}" for one in get_close_matches(key, model.model_fields, 1))
            raise ConfigError(
                f"{name} (as a variable {variable}): there is no such key{near}; known {where}are {known}"
            )
        kind, is_section = field.annotation, isinstance(value, Mapping)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if not is_section:
                first = next(iter(kind.model_fields))
                raise ConfigError(
                    f"{name}: is a section and takes no value itself; set its keys, such as {name}.{first} "
                    f"(as a variable {variable}__{first.upper()})"
                )
            _check_forms(value, kind, here)
        elif get_origin(kind) is dict:
            if not is_section or any(isinstance(item, Mapping) for item in value.values()):
                raise ConfigError(
                    f"{name}: takes a number under each name, such as {name}.window (as a variable {variable}__WINDOW)"
                )
        elif is_section:
            form = f"{variable}=..." if name in _SECRET_KEYS else f"{key} = ... or {variable}=..."
            raise ConfigError(f"{name}: takes one value and has no keys of its own; write {form}")


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


_MUST_BE = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "tuple_type": "a list such as BTCUSDT,ETHUSDT",
}


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in _MUST_BE:
        message = f"it must be {_MUST_BE[first['type']].format(**first.get('ctx', {}))}"
    elif message.startswith("Input should be "):
        message = f"it must be {message.removeprefix('Input should be ')}"
    if key in _SECRET_KEYS:
        return f"{key}: {message}"
    if not key:
        return message
    # A validator of ours may have shown the part of the value that is wrong.
    return (
        f"{key}: {message}"
        if first["type"] == "value_error"
        else f"{key}: {_shown(first['input'])} is refused: {message}"
    )
