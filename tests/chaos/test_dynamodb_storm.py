"""DynamoDB killed with SIGKILL under load, throttled, its credentials expired, the bot killed: all is there once.

Server, exchange and bot are processes; the bot trades on klines that come forty times as fast as the exchange's. Every
second call is throttled all the time. The server is killed and stays away, and the bot is killed meanwhile and again
later; the keys that the calls are signed with expire until others stand in the credentials file. In the end a program
that shares no code with the bot reads the tables and history.db: each kline and each trade that the store has is in the
tables once, equal to the last digit, and nothing else is. The long form, with an outage of five minutes:

    BULKHEAD_DYNAMODB_OUTAGE_S=300 pytest tests/chaos/test_dynamodb_storm.py -s
"""

import os
import random
import re
import signal
import sqlite3
import time
from decimal import Decimal

import pytest

from bot.app.control import ControlError, ask
from tests.aws.fault_proxy import fault_proxy, throttled
from tests.aws.servers import REGION, aws_client, no_credentials_but, running_dynalite
from tests.aws.tables import made, open_history
from tests.integration.processes import ExchangeProcess, Program, pause, told, wait_until

OUTAGE_S = float(os.environ.get("BULKHEAD_DYNAMODB_OUTAGE_S", "3"))
IS_LONG = OUTAGE_S > 60
SEED = int(os.environ.get("BULKHEAD_SEED") or 1)
INTERVAL_MS = 50
PREFIX = "storm-"
RECOVERS_WITHIN_S = 60 + OUTAGE_S
MORE_MEMORY_KB = 60_000


class Storm:
    """The three processes, and what was measured."""

    def __init__(self, folder, proxy, exchange):
        self.folder, self.proxy, self.exchange = folder, proxy, exchange
        self.data = folder / "bot"
        self.bot_kills = 0
        self.bot = None
        self.renew("AKIAFIRST")
        # The credentials are those of the file alone.
        aws = no_credentials_but("", "", folder)
        self.settings = {name: value for name, value in aws.items() if value} | {
            "BOT_STORE": "dynamodb",
            "BOT_AWS__ENDPOINT_URL": proxy.url,
            "BOT_AWS__REGION": REGION,
            "BOT_AWS__TABLE_PREFIX": PREFIX,
            "BOT_BUY_DROP": "0.002",
            "BOT_SELL_RISE": "0.002",
        }

    def renew(self, access_key):
        """Write other credentials where the bot looks for them."""
        fresh = self.folder / "fresh"
        fresh.write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = b\n")
        fresh.replace(self.folder / "aws-credentials")

    def launch(self):
        flags = ("run", "--mode", "testnet", "--data-dir", self.data)
        self.bot = Program(*flags, cwd=self.folder, settings=self.settings | self.exchange.settings)

    def kill_bot(self):
        self.bot.kill()
        self.bot_kills += 1
        self.launch()

    def status(self):
        """What the bot says of itself, None while it cannot be asked."""
        assert self.bot.is_running, self.bot.said
        try:
            status = ask(self.data / "control.sock", {"command": "status"})
        except ControlError:
            return None
        return status if status["running"] else None

    def archiving(self):
        status = self.status()
        return {"link": None, "depth": 0, "reason": "", "archived": 0} if status is None else status["archiving"]

    def taken(self):
        status = self.status()
        return 0 if status is None else sum(symbol["last_kline_ms"] or 0 for symbol in status["symbols"].values())

    def await_archived(self, what):
        """Wait until nothing waits for longer than a moment, and return how many seconds that took."""

        def is_archived():
            now = self.archiving()
            return now["link"] == "up" and (now["oldest_ms"] is None or time.time() * 1000 - now["oldest_ms"] < 3_000)

        began = time.monotonic()
        self.await_true(is_archived, RECOVERS_WITHIN_S, what)
        return time.monotonic() - began

    def await_link(self, link, what):
        self.await_true(lambda: self.archiving()["link"] == link, 30, what)

    def await_true(self, condition, timeout_s, what):
        try:
            wait_until(condition, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.archiving()}\n{self.bot.said[-3000:]}") from None

    def await_trading(self, what):
        before = self.taken()
        self.await_true(lambda: self.taken() > before, 20, what)

    @property
    def memory_kb(self):
        with open(f"/proc/{self.bot.pid}/status") as lines:
            return next(int(re.findall(r"\d+", line)[0]) for line in lines if line.startswith("VmRSS"))


def numbers(names, row):
    return {name: Decimal(row[name]) for name in names if row[name] is not None}


def stored(path):
    """What history.db holds, each row by its key."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    klines = {(row["symbol"], row["kline_key"]): dict(row) for row in connection.execute("SELECT * FROM Crypto_Table")}
    trades = {
        (row["symbol"], row["client_order_id"]): dict(row) for row in connection.execute("SELECT * FROM Crypto_Trades")
    }
    connection.close()
    return klines, trades


def archived(server, table, key):
    """All items of a table by their keys, as another program reads them; the bot's note on whose they are left out."""
    pages = aws_client("dynamodb", server.url).get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    items = {}
    for page in pages:
        for item in page["Items"]:
            if not item["symbol"]["S"].startswith("#"):
                items[item["symbol"]["S"], item[key]["S"]] = {
                    name: next(iter(value.values())) for name, value in item.items()
                }
    return items


TEXTS = ("symbol", "kline_key", "interval", "client_order_id", "side", "commission_asset", "ticker", "mode", "bot_id")
NUMBERS = (
    *("open", "high", "low", "close", "volume", "quote_volume", "open_time", "close_time", "event_time"),
    *("received_event_time", "sale_price", "quantity", "commission", "order_id", "time"),
)


def compare(ours, theirs):
    """Every row is there under its key with the same values, and nothing else is."""
    assert theirs.keys() == ours.keys(), (list(ours.keys() - theirs.keys())[:5], list(theirs.keys() - ours.keys())[:5])
    for key, row in ours.items():
        item = theirs[key]
        for name in TEXTS:
            assert item.get(name, "") == (row.get(name) or ""), (key, name)
        for name in NUMBERS:
            mine, its = row.get(name), item.get(name)
            assert (mine is None) == (its is None), (key, name)
            assert mine is None or Decimal(mine) == Decimal(its), (key, name, mine, its)
        assert bool(row.get("is_closed")) == item.get("is_closed", False), key


@pytest.mark.chaos
@pytest.mark.timeout(300 + 3 * OUTAGE_S)
def test_dynamodb_has_what_the_store_has_whoever_was_killed_throttled_or_expired(tmp_path, monkeypatch):
    rng = random.Random(SEED)
    print(f"\nBULKHEAD_SEED={SEED} BULKHEAD_DYNAMODB_OUTAGE_S={OUTAGE_S:.0f}")
    with (
        running_dynalite(tmp_path / "dynalite") as server,
        fault_proxy(server.url) as proxy,
        ExchangeProcess(tmp_path / "exchange", SEED, INTERVAL_MS) as exchange,
    ):
        storm = Storm(tmp_path, proxy, exchange)
        try:
            with monkeypatch.context() as patch:
                patch.setenv("AWS_ACCESS_KEY_ID", "a")
                patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
                with open_history(server.url, PREFIX) as history:
                    made(history)
            storm.launch()
            storm.await_archived("the first klines")
            proxy.fail(throttled(), every=2)

            server.kill()
            began = time.monotonic()
            pause(rng.uniform(0.3, 0.6) * OUTAGE_S)
            storm.kill_bot()
            storm.await_link("away", "the new process knows that it is away")
            before_kb = storm.memory_kb
            pause(began + OUTAGE_S - time.monotonic())
            storm.await_trading("the bot trades on without DynamoDB")
            waited, more_kb = storm.archiving()["depth"], storm.memory_kb - before_kb
            server.start()
            outage_s = time.monotonic() - began
            drained_s = storm.await_archived("all of the outage is there")

            proxy.expire("AKIAFIRST")
            storm.await_link("refused", "the credentials have expired")
            assert "the AWS credentials have expired" in storm.archiving()["reason"]
            storm.await_trading("the bot trades on without credentials")
            if IS_LONG:
                pause(60)
                storm.kill_bot()
                storm.await_link("refused", "another process knows too")
            storm.renew("AKIASECOND")
            if IS_LONG:
                renewed_s = storm.await_archived("new credentials are taken")
                for _ in range(5):
                    pause(rng.uniform(0.0, 3.0))
                    storm.kill_bot()
            else:
                storm.kill_bot()
                renewed_s = storm.await_archived("new credentials are taken by the next process")
            storm.await_archived("after the bot was killed")
            began = time.monotonic()
            storm.bot.send(signal.SIGTERM)
            assert storm.bot.ends(20) == 0, storm.bot.said
            stopped_s = time.monotonic() - began
            left = told("status", "--data-dir", storm.data, cwd=tmp_path)["archiving"]
            if left["depth"]:  # half of the calls are throttled at the stop too
                storm.launch()
                storm.await_archived("the next process brings what the last one left")
                proxy.heal()
                storm.bot.send(signal.SIGTERM)
                assert storm.bot.ends(20) == 0, storm.bot.said
        finally:
            if storm.bot is not None:
                storm.bot.kill()
        rest = told("status", "--data-dir", storm.data, cwd=tmp_path)["archiving"]
        klines, trades = stored(storm.data / "history.db")
        print(f"  away {outage_s:.1f} s: {waited} waited, drained in {drained_s:.1f} s, {more_kb:+} KB of memory")
        print(
            f"  credentials renewed: drained in {renewed_s:.1f} s; stopped in {stopped_s:.1f} s, {left['depth']} left"
        )
        print(f"  {len(klines)} klines, {len(trades)} trades; bot killed {storm.bot_kills} times")
        print(f"  {len(proxy.calls)} calls, {proxy.faults} of them failed by the proxy")
        assert (rest["depth"], rest["dropped"]) == (0, 0)
        compare(klines, archived(server, f"{PREFIX}Crypto_Table", "kline_key"))
        compare(trades, archived(server, f"{PREFIX}Crypto_Trades", "client_order_id"))
    assert len(klines) > 100
    assert len(trades) > 0
    assert waited > 0
    assert more_kb < MORE_MEMORY_KB
    assert stopped_s < 10
