"""`simulator`: the simulated exchange as a process of its own, until a signal ends it."""

import argparse
import json
import sys
from decimal import Decimal, InvalidOperation

from bot.cli.signals import stopped_by_signals
from bot.config import ConfigError, load_settings
from bot.simulator import SimulatedExchange, SimulatorConfig


def serve(arguments: argparse.Namespace) -> int:
    """Serve and return 0 after SIGTERM or SIGINT. With --json one line tells the addresses and keys."""
    try:
        speed = Decimal(arguments.speed)
    except InvalidOperation:
        raise ConfigError(f"--speed {arguments.speed}: give a number such as 60") from None
    if not speed.is_finite() or speed <= 0:
        raise ConfigError(f"--speed {arguments.speed}: give a number above 0")
    symbols = load_settings({"symbols": arguments.symbols}, environment={}).symbols
    config = SimulatorConfig(
        host=arguments.host,
        port=arguments.port,
        profile=arguments.profile,
        symbols=symbols,
        files=tuple(arguments.files),
        speed=speed,
        seed=arguments.seed,
        interval_ms=arguments.interval_ms,
        step=arguments.step,
        data_dir=arguments.data_dir,
        exchange_info=arguments.exchange_info,
        connection_life_ms=arguments.connection_life_ms,
        ping_every_ms=arguments.ping_every_ms,
        pong_within_ms=arguments.pong_within_ms,
    )
    exchange = SimulatedExchange(config)
    with stopped_by_signals() as stop:
        ends = exchange.start()
        try:
            places = {"rest_url": ends.rest_url, "ws_url": ends.ws_url, "ws_api_url": ends.ws_api_url}
            if arguments.json:
                print(json.dumps({**places, "api_key": ends.api_key, "api_secret": ends.api_secret}), flush=True)
            else:
                print("Simulated Binance exchange; nothing here is real. Ctrl-C stops it.")
                for name, url in places.items():
                    print(f"  {name:11} {url}")
                print(f"  {'api_key':11} {ends.api_key}\n  {'api_secret':11} {ends.api_secret}", flush=True)
            stop.wait()
        finally:
            exchange.stop()
    sys.stdout.flush()
    return 0
