"""`run`, its first look: what can be refused at once is, before a second goes into all that a bot is made of."""

import argparse

from bot.app.data_directory import DataDirectory
from bot.config import ConfigError, Mode, Settings, load_settings


def run(arguments: argparse.Namespace) -> int:
    """Run the bot as `bot.cli.run` does. Raises DataDirectoryError where another process has the directory."""
    settings = load_settings(
        {
            "mode": arguments.mode,
            "symbols": arguments.symbols,
            "interval": arguments.interval,
            "data_dir": arguments.data_dir,
        },
        arguments.config,
    )
    refuse_replay(settings)
    DataDirectory(settings.directory).refuse_if_used()

    from bot.cli import run

    return run.run(settings, arguments)


def refuse_replay(settings: Settings) -> None:
    """Raise ConfigError where the mode is that of the `replay` command, which takes files."""
    if settings.mode is Mode.REPLAY:
        raise ConfigError("mode: replay is a command of its own: bulkhead replay FILE...")
