"""`copy` both ways: equal at the end, whatever was killed in between; and when it is refused."""

import itertools
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from bot.adapters.sqlite import SqliteStore
from bot.app.copying import NOTES, copy_history
from bot.app.data_directory import DataDirectory, DataDirectoryError, Identity
from bot.cli.parser import main
from bot.config import load_settings
from tests.aws.fault_proxy import fault_proxy, silence
from tests.aws.servers import REGION, aws_client
from tests.aws.tables import ClockAt, made, open_history
from tests.contract.test_store import a_trade
from tests.integration.processes import bulkhead, environment, wait_until
from tests.support.builders import MINUTE_MS, NOON, a_kline, klines_of, mixed_klines

pytestmark = pytest.mark.usefixtures("aws_credentials")
A_BOOK = Identity("demo", "simulated", "paper", "bulkhead")
TRADES = [a_trade("bh-1"), a_trade("bh-2", "ETHUSDT")]


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def near(tmp_path, monkeypatch):
    """A data directory with a book."""
    monkeypatch.chdir(tmp_path)
    directory = DataDirectory(tmp_path / "near")
    directory.claim(A_BOOK)
    directory.release()
    return directory


@pytest.fixture
def far(dynalite, table_prefix):
    with made(open_history(dynalite.url, table_prefix)) as history:
        yield history


@pytest.fixture
def settings(dynalite, table_prefix, monkeypatch):
    monkeypatch.setenv("BOT_AWS__REGION", REGION)
    monkeypatch.setenv("BOT_AWS__TABLE_PREFIX", table_prefix)
    monkeypatch.setenv("BOT_AWS__ENDPOINT_URL", dynalite.url)
    return lambda directory: load_settings({"data_dir": directory.path})


def keep(directory, klines, trades):
    with SqliteStore(directory.history) as store:
        store.write(klines, trades)


def everything(store):
    return list(store.klines()), list(store.trades())


def copied(settings, directory, source, target, **more):
    return copy_history(settings(directory), source, target, clock=ClockAt(), **more)


def killed_after(batches):
    """A listener that ends the process once so many batches are written."""
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) > batches:
            raise Killed

    return progress


def test_there_and_back_again(settings, near, far, tmp_path, capsys):
    klines = mixed_klines()
    keep(near, klines, TRADES)
    report = copied(settings, near, "sqlite", "dynamodb")
    assert (report.klines, report.trades, report.resumed) == ({"BTCUSDT": 30, "ETHUSDT": 30}, 2, False)
    assert everything(far) == (klines, TRADES)
    again = DataDirectory(tmp_path / "again")
    for _ in range(2):
        assert copied(settings, again, "dynamodb", "sqlite").klines == report.klines
        with SqliteStore.read_only(again.history) as store:
            assert everything(store) == (klines, TRADES)
    assert not (again.path / NOTES).exists()
    # The command says the same; what was there already is there once.
    assert main(["copy", "--from", "dynamodb", "--to", "sqlite", "--data-dir", str(again.path)]) == 0
    assert "20 klines and 2 trades copied from dynamodb to sqlite" in capsys.readouterr().out, "open ones expired"


def test_a_new_directory_is_to_be_looked_at_and_the_books_own_is_filled(settings, near, far, tmp_path):
    """A directory without the journal of orders would know nothing of its positions."""
    keep(near, klines_of("1", "2"), TRADES)
    copied(settings, near, "sqlite", "dynamodb")
    new = DataDirectory(tmp_path / "new")
    copied(settings, new, "dynamodb", "sqlite")
    with pytest.raises(DataDirectoryError, match="rebuilt of trades, to be looked at"):
        new.claim(A_BOOK)
    near.history.unlink()
    copied(settings, near, "dynamodb", "sqlite")
    with SqliteStore.read_only(near.history) as store:
        assert everything(store) == (klines_of("1", "2"), TRADES)
    assert near.identity() == A_BOOK


@pytest.mark.parametrize("batches", [0, 1, 6])
@pytest.mark.parametrize("target", ["dynamodb", "sqlite"])
def test_a_copy_that_ended_in_the_middle_goes_on(settings, near, far, tmp_path, batches, target):
    klines = mixed_klines()
    keep(near, klines, TRADES)
    there = near
    if target == "sqlite":
        copied(settings, near, "sqlite", "dynamodb")
        there = DataDirectory(tmp_path / "there")
    way = ("sqlite", "dynamodb") if target == "dynamodb" else ("dynamodb", "sqlite")
    with pytest.raises(Killed):
        copied(settings, there, *way, batch=7, progress=killed_after(batches))
    done = []
    report = copied(settings, there, *way, batch=7, progress=lambda *seen: done.append(seen[0]))
    assert report.klines == {"BTCUSDT": 30, "ETHUSDT": 30}, "counted once"
    assert report.resumed == (batches > 0), "the first call tells of trades"
    assert done == sorted(done)
    if target == "dynamodb":
        assert everything(far) == (klines, TRADES)
    else:
        with SqliteStore.read_only(there.history) as store:
            assert everything(store) == (klines, TRADES)


@pytest.mark.parametrize("source", ["sqlite", "dynamodb"])
def test_a_symbol_of_which_there_is_nothing_is_refused_before_anything_is_written(
    settings, near, far, tmp_path, capsys, source
):
    keep(near, mixed_klines(), TRADES)
    there, target = near, "dynamodb"
    if source == "dynamodb":
        copied(settings, near, "sqlite", "dynamodb")
        there, target = DataDirectory(tmp_path / "new"), "sqlite"
    flags = ["--from", source, "--to", target, "--symbols", "BTCUSDT,FOOUSDT", "--data-dir", str(there.path)]
    assert main(["copy", *flags]) == 2
    told = capsys.readouterr()
    place = f"in {near.path}" if source == "sqlite" else far.place
    assert told.err == f"--symbols: there is nothing of FOOUSDT {place}; symbols there: BTCUSDT, ETHUSDT\n"
    assert told.out == ""
    if source == "sqlite":
        assert (everything(far), far.tables.identity()) == (([], []), None)
    else:
        assert not there.path.exists()


def test_notes_of_what_is_not_there_any_more_do_not_count(settings, near, far, dynalite, monkeypatch):
    keep(near, mixed_klines(), TRADES)
    with pytest.raises(Killed):
        copied(settings, near, "sqlite", "dynamodb", batch=7, progress=killed_after(4))
    client = aws_client("dynamodb", dynalite.url)
    for name in far.tables.names:
        client.delete_table(TableName=name)
        client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    made(far)
    assert not copied(settings, near, "sqlite", "dynamodb").resumed
    assert everything(far) == (mixed_klines(), TRADES)


def test_notes_that_are_ahead_of_what_is_there_do_not_count(settings, near, far, tmp_path):
    """After a power cut, say: the notes were on disk and the last transactions were not."""
    keep(near, mixed_klines(), TRADES)
    copied(settings, near, "sqlite", "dynamodb")
    there = DataDirectory(tmp_path / "there")
    with pytest.raises(Killed):
        copied(settings, there, "dynamodb", "sqlite", batch=7, progress=killed_after(3))
    with closing(sqlite3.connect(there.history)) as connection, connection:
        connection.execute("DELETE FROM Crypto_Table WHERE open_time > ?", (NOON + MINUTE_MS,))
    assert copied(settings, there, "dynamodb", "sqlite").klines == {"BTCUSDT": 30, "ETHUSDT": 30}
    with SqliteStore.read_only(there.history) as store:
        assert everything(store) == (mixed_klines(), TRADES)


def silence_after(calls):
    """The first `calls` pass, and no other is answered until the proxy heals."""
    left = itertools.count(calls, -1)

    def fault(proxy, request, forward):
        return forward(request) if next(left) > 0 else silence()(proxy, request, forward)

    return fault


def test_sigkill_in_the_middle_and_the_same_command_again(settings, near, far, dynalite, tmp_path):
    klines = klines_of(*range(1, 4_001))
    keep(near, klines, TRADES)
    with fault_proxy(dynalite.url) as proxy:
        proxy.fail(silence_after(95), "BatchWriteItem")  # however late it is killed, it is in the middle
        arguments = bulkhead("copy", "--from", "sqlite", "--to", "dynamodb", "--data-dir", near.path)
        more = {"BOT_AWS__TABLE_PREFIX": far.tables.klines.removesuffix("Crypto_Table"), "BOT_AWS__REGION": REGION}
        env = environment(**more, BOT_AWS__ENDPOINT_URL=proxy.url)
        with subprocess.Popen(arguments, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as first:
            wait_until(lambda: proxy.calls.count("BatchWriteItem") > 90, 60, "half is written")
            first.send_signal(signal.SIGKILL)
        proxy.heal()
        before = len(proxy.calls)
        again = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        assert proxy.calls[before:].count("BatchWriteItem") < 140, "of 160: it went on where it was"
    assert again.stdout.endswith(
        "4,000 klines and 2 trades copied from sqlite to dynamodb, going on with an earlier copy\n"
    )
    assert everything(far) == (klines, TRADES)


def test_ctrl_c_says_how_to_go_on(settings, near, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bot.cli.copy.copy_history", interrupted)
    assert main(["copy", "--from", "sqlite", "--to", "dynamodb", "--data-dir", "near"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("stopped; the copy goes on where it was with: ")
    assert told.endswith("copy --from sqlite --to dynamodb --data-dir near\n")


def test_only_the_symbols_named(settings, near, far):
    keep(near, mixed_klines(), TRADES)
    report = copied(settings, near, "sqlite", "dynamodb", symbols=["ETHUSDT"])
    assert (report.klines, report.trades) == ({"ETHUSDT": 30}, 1)
    assert everything(far) == ([k for k in mixed_klines() if k.symbol == "ETHUSDT"], TRADES[1:])


def test_open_klines_that_are_kept_no_longer_are_left_out_and_counted(settings, near, far):
    old = a_kline(open_time=NOON - 7 * 86_400_000, event_time=NOON, is_closed=False)
    keep(near, [old, *klines_of("1")], [])
    report = copied(settings, near, "sqlite", "dynamodb")
    assert report.expired == 1
    assert everything(far) == (klines_of("1"), [])


def test_what_can_never_be_kept_is_told(settings, near, far, capsys):
    keep(near, klines_of("1"), [a_trade("bh-9", reason="x" * 500_000), *TRADES])
    assert main(["copy", "--from", "sqlite", "--to", "dynamodb", "--data-dir", str(near.path)]) == 1
    said = capsys.readouterr()
    assert "DynamoDB cannot keep an item of BTCUSDT of 500" in said.err
    assert everything(far) == (klines_of("1"), TRADES)


def refusal(capsys, directory, *way):
    status = main(["copy", "--from", way[0], "--to", way[1], "--data-dir", str(directory.path)])
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return status, said.err


def test_what_is_refused(settings, near, far, tmp_path, capsys, monkeypatch):
    keep(near, klines_of("1"), [])
    assert refusal(capsys, near, "sqlite", "sqlite")[0] == 2
    empty = DataDirectory(tmp_path / "empty")
    assert "holds no history" in refusal(capsys, empty, "sqlite", "dynamodb")[1]
    assert "hold no book" in refusal(capsys, empty, "dynamodb", "sqlite")[1]
    far.tables.belong_to("live", "com", "uid 7", "bulkhead")
    assert "belong to another run (mode is 'live', not 'demo'" in refusal(capsys, near, "sqlite", "dynamodb")[1]
    assert "belongs to another run (mode is 'demo', not 'live'" in refusal(capsys, near, "dynamodb", "sqlite")[1]
    near.lock()
    assert "is in use by process" in refusal(capsys, near, "dynamodb", "sqlite")[1]
    near.release()
    monkeypatch.setenv("BOT_AWS__TABLE_PREFIX", "none-")
    assert "check --create" in refusal(capsys, near, "sqlite", "dynamodb")[1]
