"""Keys and signatures show nowhere: all that a bot wrote while every error path ran is searched for them."""

import json
import pickle
import re
import signal
import traceback
from contextlib import suppress

import pytest

from bot.adapters.binance import BinanceExchange
from bot.app.control import ControlError, ask
from bot.app.keys import find_keys
from bot.config import load_settings
from bot.ports import ExchangeError
from bot.supervision import SystemClock
from tests.adapters.servers import CUT, http_server, reply
from tests.integration.processes import ExchangeProcess, Program, TerminalProgram, command, wait_until
from tests.support.builders import an_intent
from tests.support.ports import unused_port

ORDER, ACCOUNT, KLINES = "/api/v3/order", "/api/v3/account", "/api/v3/klines"
SIGNATURE = re.compile(rb"signature[\"']?\s*[=:]\s*[\"']?[0-9a-fA-F%]{16}", re.IGNORECASE)
# What nobody may see of a key, so that a cut one is found too.
PART = 20

# The bot as it is, but everything that logs at all logs at its loudest.
LOUD = """
import http.client, logging, bot.cli.logs
http.client.HTTPConnection.debuglevel = 1
quiet = bot.cli.logs._configure
bot.cli.logs._configure = lambda handler, level, *more: quiet(handler, logging.DEBUG, *more)
from bot.main import run
run()
"""


def loudly(program):
    """The same command, as LOUD has it."""
    assert program[1:3] == ["-m", "bot.main"]
    return [program[0], "-c", LOUD, *program[3:]]


class LoudProgram(Program):
    def _spawn(self, program, cwd, variables):
        return super()._spawn(loudly(program), cwd, variables)


class LoudTerminal(TerminalProgram):
    def _spawn(self, program, cwd, variables):
        return super()._spawn(loudly(program), cwd, variables)


def found(data, secrets):
    """What of the secrets, or of a signature, is in these bytes."""
    parts = [secret[at : at + PART].encode() for secret in secrets for at in range(len(secret) - PART + 1)]
    return [part for part in parts if part in data] + SIGNATURE.findall(data)


def assert_clean(what, data, secrets):
    data = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
    shown = found(data, secrets)
    assert not shown, f"{what} shows {shown[0]!r}: {data[max(0, data.find(shown[0]) - 200) :][:600]!r}"


def assert_clean_directory(path, secrets):
    files = [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        assert_clean(file, file.read_bytes(), secrets)
    return {file.name for file in files}


def test_the_search_finds_what_it_looks_for():
    secret = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert found(b"x" + secret[5:25].encode(), [secret])
    assert not found(secret[5:24].encode(), [secret])
    assert found(b"/api/v3/order?a=1&signature=" + b"0a" * 32, [])
    assert found(b'{"signature": "' + b"0a" * 32 + b'"}', [])


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with ExchangeProcess(tmp_path_factory.mktemp("exchange"), 5, 100) as exchange:
        yield exchange


@pytest.fixture
def secrets(exchange):
    return [exchange.ends["api_key"], exchange.ends["api_secret"]]


def faults_of_orders(secrets):
    """Each way in which an order's request can go wrong. The exchange's texts echo the key, as no exchange should."""
    echo = f"key {secrets[0]} secret {secrets[1]} signature={'0a' * 32}"
    page = f"<html><body>{echo}</body></html>"
    for status, headers in ((401, {}), (403, {"Retry-After": "1"}), (418, {"Retry-After": "1"}), (451, {})):
        yield {"kind": "reply", "status": status, "body": page, "headers": headers}
    yield {
        "kind": "reply",
        "status": 429,
        "body": json.dumps({"code": -1003, "msg": echo}),
        "headers": {"Retry-After": "1"},
    }
    for status in (500, 502, 503, 504):
        yield {"kind": "reply", "status": status, "body": page}
    for body in ("", page, "[]", "null", '{"orderId": ', json.dumps({"symbol": echo, "status": echo}), "[" * 9000):
        yield {"kind": "reply", "status": 200, "body": body}
    for code in (-1000, -1021, -1022, -1102, -2010, -2014, -2015, -9999):
        yield {"kind": "reply", "status": 400, "body": json.dumps({"code": code, "msg": echo})}
    yield from ({"kind": kind} for kind in ("order_executed_no_reply", "order_lost_no_reply", "order_executed_5xx"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_bot_that_meets_every_error_shows_no_secret(tmp_path, exchange, secrets):
    data = tmp_path / "data"
    settings = {
        **exchange.settings,
        "BOT_BUY_DROP": "0.0002",
        "BOT_SELL_RISE": "0.0002",
        "BOT_FRACTION": "0.02",
        "BOT_EXCHANGE__RECV_WINDOW_MS": "500",
        "BOT_HANDLER_DEADLINE_MS": "3000",
    }

    def asked(path):
        return exchange.state()["requests"].get(path, 0)

    said = []

    def tell(*arguments):
        ended = command(*arguments, "--data-dir", data, cwd=tmp_path, **settings)
        said.append(ended.stdout + ended.stderr)
        return ended

    arguments = ("run", "--mode", "testnet", "--allow-chaos", "--data-dir", data)
    with LoudProgram(*arguments, cwd=tmp_path, settings=settings) as bot:
        wait_until(lambda: bot.events("trade"), 30, "a trade")
        for fault in faults_of_orders(secrets):
            before = asked(ORDER)
            path = {"path": ORDER, "method": "POST"} if fault["kind"] == "reply" else {}
            exchange.fault(**fault, **path)
            # Some halt the bot, which then asks no more.
            wait_until(lambda before=before: bot_is_halted(data) or asked(ORDER) > before + 1, 30, f"{fault} met")
            if bot_is_halted(data):
                assert tell("resume").returncode == 0
        # Questions that fail, beside orders.
        exchange.fault("order_executed_no_reply")
        exchange.fault(
            "reply", status=400, body=json.dumps({"code": -2015, "msg": secrets[0]}), path=ORDER, method="GET"
        )
        exchange.fault("reply", status=503, body=secrets[1], path=ACCOUNT)
        # Streams: cut, with a gap that cannot be filled at first, and frames that are none.
        exchange.fault("reply", status=500, body=secrets[1], path=KLINES)
        exchange.fault("ws_cut", count=2)
        for text in ("{", secrets[1], json.dumps({"e": "kline", "k": secrets[0]}), json.dumps({"error": secrets[0]})):
            exchange.fault("ws_frame", text=text)
            exchange.fault("user_frame", text=text)
        exchange.fault("user_cut")
        # Actors that die in each way.
        for name, how in (
            ("trader/BTCUSDT", "raise"),
            ("trader/ETHUSDT", "exit"),
            ("portfolio", "vanish"),
            ("feed/DOGEUSDT", "raise"),
            ("trader/DOGEUSDT", "hang"),
        ):
            said.append(json.dumps(ask(data / "control.sock", {"command": "kill", "name": name, "how": how})))
        wait_until(lambda: sum(a["restarts"] for a in status(data)["actors"]) >= 5, 60, "five restarts")
        bot.send(signal.SIGUSR1)
        for request in (
            {"command": "status"},
            {"command": "dead-letters", "action": "list"},
            {"command": "nonsense", "api_key": "?"},
            {"command": "kill", "name": "nobody", "how": "raise"},
        ):
            with suppress(ControlError):
                said.append(json.dumps(ask(data / "control.sock", request)))
        for arguments in (
            ("status", "--json"),
            ("actors", "list"),
            ("wallet",),
            ("halt",),
            ("check", "--mode", "testnet"),
        ):
            tell(*arguments)
        bot.await_line("halted: ", 10, len(bot.lines))  # an order that the halt held back
        tell("resume")
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    output = "".join([*bot.lines, *bot.errors])
    for proof in (
        "HTTP 503",
        "the key is unknown here",
        "signature is wrong",
        "HTTP 451",
        "key ***",
        "frame refused",
        "hang",
    ):
        assert proof in output, proof
    assert_clean("the bot's output", output, secrets)
    assert_clean("a command's output", "".join(said), secrets)
    assert {"orders.db", "history.db", "identity.json"} <= assert_clean_directory(data, secrets)


def status(data):
    try:
        return ask(data / "control.sock", {"command": "status"})
    except ControlError:
        return {"actors": []}


def bot_is_halted(data):
    return (data / "halt").exists()


@pytest.mark.slow
def test_a_terminal_and_its_log_file_show_no_secret(tmp_path, exchange, secrets):
    data = tmp_path / "data"
    settings = {**exchange.settings, "BOT_BUY_DROP": "0.0002", "BOT_SELL_RISE": "0.0002"}
    with LoudTerminal("run", "--mode", "testnet", "--data-dir", data, cwd=tmp_path, settings=settings) as bot:
        wait_until(lambda: "Ctrl-C" in bot.text, 30, "the live view")
        for status_code in (500, 401):
            exchange.fault("reply", status=status_code, body=secrets[1], path=ORDER)
        exchange.fault("order_executed_no_reply")
        exchange.fault("ws_frame", text=secrets[0])
        bot.send(signal.SIGUSR1)
        log = data / "bulkhead.log"
        for met in ("frame refused", "HTTP 500", "HTTP 401"):
            wait_until(lambda met=met: met in log.read_text("utf-8"), 10, met)
        bot.type(b"\x03")
        assert bot.ends(10) == 0
    assert_clean("the terminal", "".join(bot.lines), secrets)
    assert "bulkhead.log" in assert_clean_directory(data, secrets)


WRONG = {"BOT_API_KEY": "wrongKey0123456789" * 4, "BOT_API_SECRET": "wrongSecret0123456789" * 4}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"BOT_API_SECRET": WRONG["BOT_API_SECRET"]}, "signature is wrong"),
        (WRONG, "BOT_API_KEY"),
        ({"BOT_API_KEY": ""}, "without BOT_API_KEY"),
        ({"BOT_API_SECRET": WRONG["BOT_API_SECRET"] + " "}, "blank"),
        ({"BOT_API_SECRET": WRONG["BOT_API_SECRET"] + "ü"}, "odd character"),
        ({"BOT_API_SECRET__X": WRONG["BOT_API_SECRET"]}, "api_secret"),
        ({"BOT_SYMBOLS": "NONEUSDT"}, "NONEUSDT"),
    ],
    ids=["wrong secret", "wrong key", "half", "blank", "not ascii", "a section", "symbol"],
)
def test_a_start_that_is_refused_shows_no_secret(tmp_path, exchange, secrets, changes, says):
    settings = {**exchange.settings, **changes}
    for arguments in (("run", "--for", "1s"), ("check",)):
        ended = command(*arguments, "--mode", "testnet", "--data-dir", "data", cwd=tmp_path, **settings)
        assert ended.returncode == (2 if arguments[0] == "run" or not ended.stdout else 1), ended.stderr
        assert says in ended.stdout + ended.stderr
        assert_clean(arguments, ended.stdout + ended.stderr, [*secrets, *WRONG.values()])
    assert_clean_directory(tmp_path, [*secrets, *WRONG.values()])


def test_a_secret_in_a_file_is_refused_unseen(tmp_path, secrets):
    for text in (
        f'api_secret = "{secrets[1]}"',
        f'[exchange]\napi_secret = "{secrets[1]}"',
        f'api_secret = "{secrets[1]}',
    ):
        (tmp_path / "bot.toml").write_text(text)
        ended = command("run", "--mode", "testnet", cwd=tmp_path)
        assert ended.returncode == 2
        assert_clean("a refused file", ended.stdout + ended.stderr, secrets)


KEY, SECRET = "aKey" * 16, "aSecret0" * 8


def texts_of(value):
    """All ways in which a value may come to be shown."""
    yield from (repr(value), str(value), f"{value:}" if type(value).__format__ is object.__format__ else "")
    if isinstance(value, BaseException):
        yield "".join(traceback.format_exception(value))


def test_settings_keys_and_clients_hide_what_they_hold():
    settings = load_settings({"mode": "testnet"}, environment={"BOT_API_KEY": KEY, "BOT_API_SECRET": SECRET})
    exchange = BinanceExchange("http://127.0.0.1:1", SystemClock(), KEY, SECRET)
    for value in (settings, find_keys(settings), exchange, exchange._client):
        for text in texts_of(value):
            assert_clean(type(value), text, [KEY, SECRET])
    assert_clean("settings as JSON", settings.model_dump_json(), [KEY, SECRET])
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it says, they cannot be stored away
        pickle.dumps(find_keys)(settings)


@pytest.mark.parametrize("answer", [reply("{}"), reply("<html>", status=502), reply(status=400), CUT, None])
def test_what_a_client_raises_hides_them(answer):
    def calls(exchange):
        yield from (exchange.balances, exchange.may_withdraw, exchange.now_ms)
        yield from (lambda: exchange.place(an_intent()), lambda: exchange.find(an_intent()))

    with http_server() as server:
        server.on("/api/v3/time", reply('{"serverTime": 1}'))
        for path in (ORDER, ACCOUNT, "/sapi/v1/account/apiRestrictions"):
            server.on(path, answer or reply("{}"))
        url = server.url if answer else f"http://127.0.0.1:{unused_port()}"
        for call in calls(BinanceExchange(url, SystemClock(), KEY, SECRET, read_timeout_ms=500)):
            try:
                call()
            except ExchangeError as error:
                for text in texts_of(error):
                    assert_clean(call, text, [KEY, SECRET])
