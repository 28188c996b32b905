"""`python -m bot.main` as a real process, as a newcomer has it: no key, no file, no argument but a directory."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import time
from contextlib import contextmanager
from functools import partial

import pytest

from bot.adapters.sqlite import SqliteStore
from tests.integration.books import assert_same_books
from tests.integration.processes import (
    SYMBOLS,
    ExchangeProcess,
    Program,
    TerminalProgram,
    bulkhead,
    command,
    count_of_trades,
    environment,
    pause,
    status_of,
    told,
    wait_until,
    within,
)
from tests.support.stalls import watched_stalls

ACTORS = {
    *("monitor", "persistence", "bridge", "portfolio"),
    *(f"{kind}/{symbol}" for kind in ("trader", "feed") for symbol in SYMBOLS),
}
EAGER = {"BOT_BUY_DROP": "0.0002", "BOT_SELL_RISE": "0.0002"}


def has_klines(data):
    """Whether the bot that runs there has taken a kline of each symbol."""
    status = status_of(data)
    if status is None or set(status["symbols"]) != set(SYMBOLS):
        return None
    return status if all(view["last_kline_ms"] for view in status["symbols"].values()) else None


@contextmanager
def with_klines_within(seconds, folder):
    """A newcomer's bot that has klines of all symbols in time; the last of three starts, each in a folder of its own.

    A machine stands still for a second now and then, but a start that is slow is slow each time.
    """
    took = []
    while len(took) < 3:
        place = folder / str(len(took))
        place.mkdir()
        with Program(cwd=place) as bot:
            status = wait_until(lambda place=place: has_klines(place / "data" / "demo"), 10, "klines of all symbols")
            took.append(time.monotonic() - bot.began)
            if took[-1] < seconds:
                yield bot, status, place
                return
    raise AssertionError(f"klines of all symbols only after {took} s")


@pytest.mark.alone
@pytest.mark.slow
def test_a_newcomers_first_minute(tmp_path):
    with with_klines_within(5, tmp_path) as (bot, status, folder):
        data = folder / "data" / "demo"
        assert (status["mode"], status["running"], status["pid"]) == ("demo", True, bot.pid)
        assert all(view["last_kline_ms"] >= bot.began_ms for view in status["symbols"].values())

        while_it_runs = told("status", cwd=folder)
        assert {actor["name"] for actor in while_it_runs["actors"]} >= ACTORS
        assert {actor["state"] for actor in while_it_runs["actors"]} == {"running"}
        assert all(actor["restarts"] == 0 and not actor["last_error"] for actor in while_it_runs["actors"])

        within(bot.began + 30 - time.monotonic(), lambda: told("trades", cwd=folder), "the first trade stored")
        stored = told("klines", cwd=folder)
        assert {kline["symbol"] for kline in stored} == set(SYMBOLS)
        assert all(re.fullmatch(r"1m#\d{13}#(\d{13}|closed)", kline["kline_key"]) for kline in stored)
        assert set(told("wallet", cwd=folder)) >= {"cash", "equity", "positions", "mode"}
        assert told("actors", "list", cwd=folder)
        assert stat.S_IMODE((data / "control.sock").stat().st_mode) == 0o600

        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    assert bot.errors == []
    log, summary = bot.lines[: -len(summary_of(bot))], summary_of(bot)
    for line in map(json.loads, log):
        assert line["mode"] == "demo"
        assert {"event", "level", "time"} <= set(line)
    assert "SIMULATED" in summary[0]
    assert "PAPER" in summary[0]

    status = told("status", cwd=folder)
    assert (status["mode"], status["running"], status["pid"]) == ("demo", False, None)
    trades = told("trades", cwd=folder)
    assert {trade["client_order_id"] for trade in trades} == {e["client_order_id"] for e in bot.events("trade")}
    assert [trade["time"] for trade in trades] == sorted(trade["time"] for trade in trades)
    assert len(told("klines", cwd=folder)) >= len(stored)
    assert told("wallet", cwd=folder)["mode"] == "demo"


def summary_of(bot):
    """The lines for people that a run ends with."""
    return [line for line in bot.lines if not line.startswith("{")]


@pytest.mark.slow
def test_a_run_ends_by_itself(tmp_path):
    with Program("run", "--for", "3s", "--data-dir", tmp_path / "data", cwd=tmp_path) as bot:
        assert bot.ends(15) == 0
        assert time.monotonic() - bot.began > 3
    assert bot.errors == []


def test_a_directory_has_one_bot_and_one_mode(tmp_path):
    data = tmp_path / "data"
    with Program("run", "--data-dir", data, cwd=tmp_path) as bot:
        wait_until(lambda: status_of(data), 10, "a running bot")
        second = command("run", "--data-dir", data, cwd=tmp_path)
        assert_refused(second, str(bot.pid), str(data))
        assert bot.is_running
        bot.send(signal.SIGINT)
        assert bot.ends(10) == 0
    other = {"BOT_API_KEY": "k" * 64, "BOT_API_SECRET": "s" * 64}
    assert_refused(command("run", "--mode", "testnet", "--data-dir", data, cwd=tmp_path, **other), "demo", "testnet")


@pytest.mark.alone
@pytest.mark.slow
def test_a_kline_is_readable_within_a_second(tmp_path):
    data = tmp_path / "data"
    late = []
    with watched_stalls() as stalls, Program("run", "--data-dir", data, cwd=tmp_path) as bot:
        taken = wait_until(lambda: has_klines(data), 10, "klines")["symbols"]
        for _ in range(6):
            symbol, event_time = wait_until(partial(newer_kline, data, taken), 10, "one more kline")
            seen = time.monotonic()
            wait_until(partial(is_stored, data, symbol, event_time), 5, f"{symbol} {event_time} in the store")
            there = time.monotonic()
            late.append(there - seen - stalls.within(seen, there))
            taken = wait_until(lambda: has_klines(data), 10, "its status")["symbols"]
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    assert max(late) < 1


def newer_kline(data, before):
    """A symbol whose last kline is another one than before, and that kline's event time."""
    status = has_klines(data)
    now = before if status is None else status["symbols"]
    return next(((s, now[s]["last_kline_ms"]) for s in now if now[s] != before[s]), None)


def is_stored(data, symbol, event_time):
    with SqliteStore.read_only(data / "history.db") as store:
        return any(kline.event_time >= event_time for kline in store.last_klines(symbol, 1))


@pytest.mark.slow
def test_a_killed_demo_goes_on_with_its_book(tmp_path):
    data = tmp_path / "data"
    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        wait_until(lambda: len(bot.events("trade")) >= 3, 30, "three trades")
        bot.kill()
    first = told("trades", "--data-dir", data, cwd=tmp_path)
    assert told("status", "--data-dir", data, cwd=tmp_path)["running"] is False

    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        # Three were made before the kill, of which the last may be stored only now.
        wait_until(lambda: count_of_trades(data) >= 4, 30, "one more trade")
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    trades = told("trades", "--data-dir", data, cwd=tmp_path)
    assert [trade for trade in trades if trade in first] == first

    # The exchange that was embedded keeps its books beside the bot's; served alone, it is asked what it knows.
    books = tmp_path / "exchange" / "books"
    books.parent.mkdir()
    (data / "exchange").rename(books)
    with ExchangeProcess(books.parent, 0, 60_000) as exchange:
        counts = assert_same_books(exchange.state(), data, "demo")
    assert counts["orders"] >= 4


def test_a_terminal_shows_the_live_view_until_ctrl_c(tmp_path):
    with TerminalProgram("run", "--data-dir", tmp_path / "data", cwd=tmp_path) as bot:
        for what in ("SIMULATED", "PAPER", *SYMBOLS, "Wallet", "Ctrl-C"):
            wait_until(partial(is_shown, bot, what), 15, f"{what} on the terminal")
        wait_until(lambda: has_klines(tmp_path / "data"), 10, "klines")
        assert bot.is_running
        bot.type(b"\x03")
        assert bot.ends(10) == 0
    raw = "".join(bot.lines)
    assert "\x1b[?1049h" in raw, "the view takes a screen of its own"
    left = raw.rpartition("\x1b[?1049l")[2]
    assert "ran for" in left, "the summary stays when the view has gone"
    assert "Traceback" not in raw
    assert "\x1b[?25h" in raw, "the cursor is given back"
    log = [json.loads(line) for line in (tmp_path / "data" / "bulkhead.log").read_text().splitlines()]
    assert {line["mode"] for line in log} == {"demo"}


def is_shown(bot, what):
    return what in bot.text


def test_a_second_signal_ends_at_once(tmp_path):
    data = tmp_path / "data"
    with Program("run", "--data-dir", data, cwd=tmp_path) as bot:
        wait_until(lambda: status_of(data), 10, "a running bot")
        bot.send(signal.SIGTERM)
        pause(0.01)
        bot.send(signal.SIGTERM)
        assert bot.ends(10) in (0, 128 + signal.SIGTERM)


# The kill switch.


@pytest.mark.slow
def test_a_halted_bot_sends_no_order_until_it_is_resumed(tmp_path):
    data = tmp_path / "data"
    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        wait_until(lambda: bot.events("trade"), 15, "a trade")
        assert command("resume", "--data-dir", data, cwd=tmp_path).stdout == f"{data} was not halted\n"
        halted = command("halt", "--data-dir", data, cwd=tmp_path)
        assert (halted.returncode, halted.stderr) == (0, "")
        assert f"process {bot.pid}" in halted.stdout
        assert f"resume --data-dir {data}" in halted.stdout
        # Who is refused an order has none on its way; one that had passed the gate may end before.
        wait_until(lambda: halted_symbols(bot) == set(SYMBOLS), 30, "an order of each symbol refused")
        wait_until(lambda: count_of_trades(data) == len(bot.events("trade")), 15, "all trades are stored")
        before, refused = len(told("trades", "--data-dir", data, cwd=tmp_path)), refused_as_halted(bot)
        wait_until(lambda: refused_as_halted(bot) >= refused + 3, 15, "three more orders refused")
        assert len(told("trades", "--data-dir", data, cwd=tmp_path)) == before
        assert "halt: halted by" in command("check", "--data-dir", data, cwd=tmp_path).stdout
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0

    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        wait_until(lambda: refused_as_halted(bot), 15, "an order refused after the restart")
        assert len(told("trades", "--data-dir", data, cwd=tmp_path)) == before
        resumed = command("resume", "--data-dir", data, cwd=tmp_path)
        assert (resumed.returncode, resumed.stderr) == (0, "")
        assert "halted by" in resumed.stdout
        wait_until(lambda: count_of_trades(data) > before, 15, "a trade once more")
        assert "halted by" not in command("check", "--data-dir", data, cwd=tmp_path).stdout
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0


def refused_as_halted(bot):
    return sum(map(is_halted, bot.log()))


def halted_symbols(bot):
    return {line["symbol"] for line in bot.log() if is_halted(line)}


def is_halted(line):
    return "NOT_PLACED" in json.dumps(line) and "halted: by" in json.dumps(line)


def test_halting_twice_keeps_the_first_reason(tmp_path):
    data = tmp_path / "data"
    told("replay", write_rows(tmp_path / "BTCUSDT-1m-x.csv", rows_of("1", "2")), "--data-dir", data, cwd=tmp_path)
    command("halt", "--data-dir", data, cwd=tmp_path)
    first = (data / "halt").read_text()
    again = command("halt", "--data-dir", data, cwd=tmp_path)
    assert (again.returncode, (data / "halt").read_text()) == (0, first)
    assert "already" in again.stdout


# Streams that are closed, full, or left.


def shell(line, cwd):
    """Run a line of shell in which `bulkhead` is the program."""
    program = shlex.join(bulkhead())
    variables = environment()
    del variables["PYTHONUNBUFFERED"]  # as people have it
    return subprocess.run(
        ["bash", "-c", f'bulkhead() {{ {program} "$@"; }}; {line}'],
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def book(tmp_path):
    told("replay", write_rows(tmp_path / "BTCUSDT-1m-x.csv", rows_of("1", "2")), "--data-dir", "d", cwd=tmp_path)
    return tmp_path


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_good_as_dev_null(book, closed):
    ended = shell(f"bulkhead wallet --data-dir d {closed}", book)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_run_with_closed_output_runs(tmp_path):
    ended = shell("bulkhead run --for 1s --data-dir d >&-", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert told("status", "--data-dir", "d", cwd=tmp_path)["mode"] == "demo"


@pytest.mark.parametrize(
    "arguments",
    [
        "wallet --json --data-dir d",
        "klines --data-dir d",
        "klines --json --data-dir d",
        "backtest BTCUSDT-1m-x.csv --json",
    ],
)
def test_a_full_disk_is_said_in_one_line(book, arguments):
    ended = shell(f"bulkhead {arguments} >/dev/full", book)
    complaints = [line for line in ended.stderr.splitlines() if not line.startswith("compare_on = ")]
    assert ended.returncode == 1
    assert len(complaints) == 1, ended.stderr
    assert "No space left" in complaints[0]


def test_a_reader_that_goes_away_is_no_failure(tmp_path):
    ended = shell("bulkhead run --for 3s --data-dir d | head -1; exit ${PIPESTATUS[0]}", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1


# What cannot be used is refused in one line.


def assert_refused(ended, *fragments, status=2):
    assert "Traceback" not in ended.stderr, ended.stderr
    assert (ended.returncode, ended.stdout) == (status, ""), ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert all(fragment in ended.stderr for fragment in fragments), ended.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("dance",), "dance"),
        (("run", "--nonsense"), "--nonsense"),
        (("--nonsense",), "--nonsense"),
        (("run", "--mode", "moon"), "moon"),
        (("run", "--symbols", "btc-usdt"), "symbols"),
        (("run", "--symbols", "BTCUSDT,BTCUSDT"), "twice"),
        (("run", "--interval", "7m"), "interval"),
        (("run", "--for", "soon"), "soon"),
        (("run", "--config", "none.toml"), "none.toml"),
        (("run", "--mode", "testnet"), "BOT_API_KEY"),
        (("run", "--mode", "live"), "--yes-real-money"),
        (("run", "--mode", "live", "--yes-real-money"), "BOT_API_KEY"),
        (("run", "--data-dir", ""), "--data-dir"),
        (("wallet", "--data-dir", ""), "--data-dir"),
        (("wallet", "--data-dir", "none"), "none"),
        (("halt", "--data-dir", "none"), "none"),
        (("resume", "--data-dir", "none"), "none"),
        (("simulator", "--speed", "0"), "--speed"),
        (("simulator", "--files", "none.csv"), "none.csv"),
        (("simulator", "--interval-ms", "0"), "interval_ms"),
        (("simulator", "--port", "99999"), "port"),
        (("simulator", "--exchange-info", "none.json"), "none.json"),
        (("simulator", "--connection-life-ms", "0"), "connection_life_ms"),
        (("simulator", "--symbols", "BTCUSDX"), "BTCUSDX"),
        (("run", "--symbols", "BTCUSDT,BTCEUR"), "quote asset"),
        (("run", "--data-dir", "/proc/none"), "/proc/none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_arguments(tmp_path, arguments, fragment):
    assert_refused(command(*arguments, cwd=tmp_path), fragment)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("BOT_NONSENSE", "1"), ("BOT_FRACTION", "2"), ("BOT_EXCHANGE__REST", "http://x"), ("BOT_DATA_DIR", "")],
)
def test_bad_variables(tmp_path, variable, value):
    ended = command("run", "--for", "1s", cwd=tmp_path, **{variable: value})
    assert_refused(ended, variable.removeprefix("BOT_").lower().replace("__", "."))


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("fractoin = 0.1", ("fractoin",)),
        ("fraction = 0", ("fraction",)),
        ('api_secret = "x"', ("bot.toml", "BOT_API_SECRET")),
        ("[exchange]\nprofile = 'mars'", ("exchange.profile",)),
        ("fraction = = 1", ("bot.toml", "line 1")),
        ('bot_id = "a b"', ("bot_id",)),
        ('data_dir = ""', ("data_dir",)),
        ("data_dir = 5", ("data_dir",)),
    ],
)
def test_bad_configuration(tmp_path, text, fragments):
    (tmp_path / "bot.toml").write_text(text)
    assert_refused(command("run", "--for", "1s", cwd=tmp_path), *fragments)
    assert not (tmp_path / "data").exists()


START = 1_621_425_600_000


def rows_of(*closes):
    """Closed candles of a minute in the archive's column order."""
    return [
        f"{START + n * 60_000},{c},{c},{c},{c},1.5,{START + n * 60_000 + 59_999},100,7,1,50,0"
        for n, c in enumerate(closes)
    ]


def write_rows(path, rows):
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("verb", ["backtest", "replay"])
class TestBadFiles:
    def test_missing(self, tmp_path, verb):
        assert_refused(command(verb, "BTCUSDT-1m-none.csv", cwd=tmp_path), "BTCUSDT-1m-none.csv")

    def test_a_bad_row_is_named(self, tmp_path, verb):
        rows = rows_of("100", "101", "102", "103")
        rows[2] = rows[2].replace("102", "1O2")
        file = write_rows(tmp_path / "BTCUSDT-1m-x.csv", rows)
        assert_refused(command(verb, file, cwd=tmp_path), f"{file.name}:3: ")

    def test_no_rows(self, tmp_path, verb):
        file = write_rows(tmp_path / "BTCUSDT-1m-x.csv", [])
        assert_refused(command(verb, file, cwd=tmp_path), file.name)

    def test_a_symbol_without_filters(self, tmp_path, verb):
        file = write_rows(tmp_path / "XYZUSDT-1m-x.csv", rows_of("100", "98"))
        assert_refused(command(verb, file, cwd=tmp_path), "XYZUSDT", "--filters")

    def test_a_bad_parameter(self, tmp_path, verb):
        file = write_rows(tmp_path / "BTCUSDT-1m-x.csv", rows_of("100", "98"))
        assert_refused(command(verb, file, "--buy-drop", "1", cwd=tmp_path), "buy_drop")


def test_replay_refuses_a_directory_with_a_book(tmp_path):
    file = write_rows(tmp_path / "BTCUSDT-1m-x.csv", rows_of("100", "98"))
    told("replay", file, "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert_refused(command("replay", file, "--data-dir", tmp_path / "data", cwd=tmp_path), "data")


def test_replay_and_backtest_say_the_same_and_nothing_else(tmp_path):
    btc = [str(60_000 + 37 * ((n * n) % 53) - 11 * n) for n in range(120)]
    doge = [f"0.{3000 + 97 * ((n * 7) % 13)}" for n in range(120)]
    shuffled = rows_of(*btc)
    shuffled = [*shuffled[60:], *shuffled[:60], shuffled[30]]
    files = (
        write_rows(tmp_path / "BTCUSDT-1m-x.csv", shuffled),
        write_rows(tmp_path / "DOGEUSDT-1m-x.csv", rows_of(*doge)),
    )
    flags = ("--slippage", "0.0005", "--fraction", "0.3", "--sell-fraction", "0.7", "--max-exposure", "0.3")
    tested = told("backtest", *files, *flags, cwd=tmp_path)
    replayed = told("replay", *files, *flags, cwd=tmp_path)
    assert tested == replayed
    assert len(tested["trades"]) > 20
    assert (tested["bars"], tested["dropped"]) == (240, 1)
    assert tested["skipped"]
    assert set(os.listdir(tmp_path)) == {file.name for file in files}
