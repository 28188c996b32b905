"""`reconcile` beside a running bot, which here is no more than its directory and its control socket."""

import json

import pytest

from bot.app.control import ControlServer
from bot.app.data_directory import DataDirectory, Identity
from bot.cli.parser import main

FOUND = {"assets": [], "findings": [], "stops": {}, "adjustments": ["coins that are gone"]}


@pytest.fixture
def directory(tmp_path):
    directory = DataDirectory(tmp_path)
    directory.claim(Identity("testnet", "com@host", "uid 1", "bulkhead"))
    directory.stop_symbol("BTCUSDT", "coins are missing")
    directory.stop_symbol("ETHUSDT", "others are missing")
    yield directory
    directory.release()


def test_what_was_accepted_is_free_and_not_told_to_be_stopped_too(directory, capsys):
    # The bot takes the stop away once all who keep books know: later than it answers.
    server = ControlServer(directory.control_socket, lambda _: {**FOUND, "freed": ["BTCUSDT"]})
    server.start()
    try:
        assert main(["reconcile", "--accept", "--json", "--data-dir", str(directory.path)]) == 0
    finally:
        server.close()
    told = json.loads(capsys.readouterr().out)
    assert (told["freed"], told["stopped"]) == (["BTCUSDT"], {"ETHUSDT": "others are missing"})
