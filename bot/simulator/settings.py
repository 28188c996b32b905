"""Decides what can be set about the simulated exchange, and what its user is told about reaching it."""

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")


@dataclass(frozen=True)
class SimulatorConfig:
    """How the exchange is started.

    `port` 0 takes a free one. `profile`: com or us. `files`: klines to play, their times shifted so that they begin
    now; the exchange then trades their symbols, and those of `symbols` too where that is not the default. `speed`: how
    fast the market's time runs. `seed` None: random, and kept in `data_dir`. `interval_ms`: between two updates of a
    symbol's klines; None: the exchange's own 2000, 1000 for 1s. `step`: klines only on POST /sim/next. `data_dir` None:
    nothing survives the process. `enable_withdrawals`: the API key has a right that a bot must not have.
    `exchange_info`: a file with an answer of GET /exchangeInfo, whose symbols, filters and statuses then hold; every
    symbol must be in it. `connection_life_ms`, `ping_every_ms`, `pong_within_ms`: of websocket connections; None: the
    exchange's own 24 h, 20 s and 60 s.
    """

    host: str = "127.0.0.1"
    port: int = 0
    profile: str = "com"
    symbols: tuple[str, ...] = DEFAULT_SYMBOLS
    files: tuple[Path, ...] = ()
    speed: Decimal = Decimal(1)
    seed: int | None = None
    interval_ms: int | None = None
    step: bool = False
    data_dir: Path | None = None
    enable_withdrawals: bool = False
    exchange_info: Path | None = None
    connection_life_ms: int | None = None
    ping_every_ms: int | None = None
    pong_within_ms: int | None = None


@dataclass
class Rights:
    """What the account and its API key may do; `POST /sim/account` changes it."""

    can_trade: bool = True
    can_withdraw: bool = True
    can_deposit: bool = True
    ip_restrict: bool = False
    enable_reading: bool = True
    enable_withdrawals: bool = False
    enable_spot_and_margin_trading: bool = True
    permissions: tuple[str, ...] = ("SPOT",)


@dataclass(frozen=True)
class Endpoints:
    """Where a running exchange is reached, and the keys of its one account."""

    rest_url: str
    ws_url: str
    ws_api_url: str
    api_key: str
    api_secret: str = field(repr=False)
