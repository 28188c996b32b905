"""Wild minutes for storms: real ones of 2021-05-19 where the kline files are, made-up ones elsewhere."""

import gzip
import os
import random
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from bot.domain.kline import Kline
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.research.backtest import run_backtest
from bot.research.files import Series, merged, read_series
from tests.integration.processes import SYMBOLS

DATA = Path(os.environ.get("BULKHEAD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "klines"
NAME = "{}-1m-2021-04-20_2021-05-20.csv.gz"
# 2021-05-19 07:46 to 19:06 UTC: no minute is missing in any of the three, and each moves by half a percent in every
# third one or so.
WILD_FROM, WILD_UNTIL = 1_621_410_360_000, 1_621_451_160_000
MINUTE_MS = 60_000
CASH = Decimal(10_000)
THRESHOLD = Decimal("0.0015")
FRACTION = Decimal("0.15")
"""Drop, rise and fraction of all storms: about every other minute trades, and the money runs short now and then."""

SETTINGS = {"BOT_BUY_DROP": str(THRESHOLD), "BOT_SELL_RISE": str(THRESHOLD), "BOT_FRACTION": str(FRACTION)}


class Forgetful(Scalping):
    """The scalping rule without the decisions on some klines, named by symbol and open_time."""

    def __init__(self, forgotten: Collection[tuple[str, int]]) -> None:
        super().__init__(THRESHOLD, THRESHOLD)
        self._forgotten = forgotten

    def decide(self, state: Any, kline: Kline, position: Any) -> Any:
        state, signal = super().decide(state, kline, position)
        return state, None if (kline.symbol, kline.open_time) in self._forgotten else signal


@dataclass(frozen=True)
class Tape:
    """Klines of all symbols in files; `first` is the first open_time."""

    paths: tuple[Path, ...]
    source: str
    series: tuple[Series, ...]
    first: int

    @property
    def steps(self) -> list[tuple[str, int]]:
        """Symbol and open_time of each kline in the order in which the exchange serves them."""
        return [(one.symbol, row.open_time) for one, row in merged(self.series)]

    def expected(self, rules: Any, forgotten: Collection[tuple[str, int]] = ()) -> Any:
        """What a backtest, which has no actors that could die, makes of the tape without the forgotten decisions."""
        sizing = SizingParameters(fraction=FRACTION)
        return run_backtest(self.series, rules, Forgetful(forgotten), sizing, CASH).as_json()


def make_tape(folder: Path, rng: random.Random, minutes: int) -> Tape:
    """Write one file a symbol, of `minutes` rows that begin at a moment chosen by `rng`."""
    folder.mkdir(parents=True, exist_ok=True)
    start = WILD_FROM + rng.randrange((WILD_UNTIL - WILD_FROM) // MINUTE_MS - minutes) * MINUTE_MS
    source = "made-up klines"
    paths = []
    for symbol in SYMBOLS:
        real = DATA / NAME.format(symbol)
        if real.exists():
            source = f"real klines from {start}"
            rows = _real_rows(real, start, start + minutes * MINUTE_MS)
            assert len(rows) == minutes, f"{real} has a hole"
        else:
            rows = _made_up_rows(rng, start, minutes)
        path = folder / f"{symbol}-1m-storm.csv"
        path.write_text("".join(rows))
        paths.append(path)
    return Tape(tuple(paths), source, tuple(read_series(paths)), start)


def _real_rows(path: Path, start: int, end: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line for line in lines if line[0].isdigit() and start <= int(line.split(",", 1)[0]) < end]


def _made_up_rows(rng: random.Random, start: int, minutes: int) -> list[str]:
    price, rows = Decimal(100), []
    for minute in range(minutes):
        opened, price = price, (price * rng.choice((970, 992, 1000, 1000, 1006, 1025)) / 1000).quantize(Decimal("0.01"))
        high, low = max(opened, price) + 1, min(opened, price) - 1
        opens = start + minute * MINUTE_MS
        rows.append(f"{opens},{opened},{high},{low},{price},{minute + 1}.5,{opens + MINUTE_MS - 1},,,,,\n")
    return rows
