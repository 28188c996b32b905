"""The simulated exchange as a process of its own that refuses nothing for its limits: for more than a bot may do.

python -m benchmarks.unlimited_exchange --symbols BTCUSDT,ETHUSDT [--interval-ms 100] [--life-ms 86400000] [--seed 1]
    [--profile com|us] [--exchange-info FILE]
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bot.simulator import SimulatedExchange, SimulatorConfig
from bot.simulator.profiles import PROFILES

ENDLESS = 10**9


@contextmanager
def unlimited_exchange(
    symbols: Sequence[str],
    interval_ms: int,
    seed: int = 1,
    life_ms: int = 86_400_000,
    profile: str = "com",
    exchange_info: Path | None = None,
) -> Iterator[dict[str, str]]:
    """Run one within the block; the value is what `simulator --json` prints. `life_ms`: when it ends connections.

    `exchange_info`: a recorded answer, whose filters then hold.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.unlimited_exchange", "--symbols", ",".join(symbols)),
            *("--interval-ms", str(interval_ms), "--life-ms", str(life_ms), "--seed", str(seed), "--profile", profile),
            *(("--exchange-info", str(exchange_info)) if exchange_info is not None else ()),
        ],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--interval-ms", type=int, default=100)
    parser.add_argument("--life-ms", type=int, default=86_400_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="com")
    parser.add_argument("--exchange-info", type=Path)
    given = parser.parse_args()
    profile = replace(
        PROFILES[given.profile],
        weight_per_minute=ENDLESS,
        raw_per_5_minutes=ENDLESS,
        connections_per_5_minutes=ENDLESS,
        orders_per_10_seconds=ENDLESS,
        orders_per_day=ENDLESS,
        connection_life_ms=given.life_ms,
    )
    config = SimulatorConfig(
        profile=given.profile,
        symbols=tuple(given.symbols.split(",")),
        seed=given.seed,
        interval_ms=given.interval_ms,
        exchange_info=given.exchange_info,
    )
    exchange, ended = SimulatedExchange(config, profile=profile), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ends = exchange.start()
    line = {name: getattr(ends, name) for name in ("rest_url", "ws_url", "ws_api_url", "api_key", "api_secret")}
    print(json.dumps(line), flush=True)
    ended.wait()
    exchange.stop()


if __name__ == "__main__":
    main()
