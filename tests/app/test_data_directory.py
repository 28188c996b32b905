"""DataDirectory: one process at a time, one book, and a kill switch that outlives both."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bot.app.data_directory import DataDirectory, DataDirectoryError, Identity
from bot.domain.order import Side

DEMO = Identity(mode="demo", exchange="simulated", account="paper", bot_id="bulkhead")
HOLDER = """
import sys
from pathlib import Path
from bot.app.data_directory import DataDirectory, Identity
directory = DataDirectory(Path(sys.argv[1]))
directory.claim(Identity(mode="demo", exchange="simulated", account="paper", bot_id="bulkhead"))
print("claimed", flush=True)
sys.stdin.readline()
directory.release()
"""


@pytest.fixture
def directory(tmp_path):
    directory = DataDirectory(tmp_path / "data")
    yield directory
    directory.release()


@pytest.fixture
def holder(directory):
    """Another process that has the directory."""
    command = [sys.executable, "-c", HOLDER, str(directory.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_refused_with_the_firsts_pid(directory, holder):
    assert directory.running_pid() == holder.pid
    with pytest.raises(DataDirectoryError, match=f"in use by process {holder.pid};"):
        directory.claim(DEMO)
    holder.communicate("\n")
    assert directory.running_pid() is None
    directory.claim(DEMO)
    assert directory.running_pid() == os.getpid()


def test_a_process_that_was_killed_leaves_the_directory_free(directory, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait(60)
    assert directory.running_pid() is None
    directory.claim(DEMO)
    assert directory.running_pid() == os.getpid()


def test_a_directory_is_claimed_again_after_its_release(directory):
    directory.claim(DEMO)
    with pytest.raises(DataDirectoryError, match=str(os.getpid())):
        DataDirectory(directory.path).claim(DEMO)
    directory.release()
    directory.release()
    DataDirectory(directory.path).claim(DEMO)


def test_who_only_looks_keeps_nobody_out(directory, monkeypatch):
    """`status` asks for the pid at any time, also while a bot starts, and holds the lock for that instant."""
    directory.claim(DEMO)
    directory.release()
    looker = os.open(directory.path / "lock", os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    looks = []
    really = directory.running_pid

    def look():
        looks.append(really())
        if len(looks) == 3:
            os.close(looker)
        return looks[-1]

    monkeypatch.setattr(directory, "running_pid", look)
    directory.claim(DEMO)
    assert looks == [None, None, None]


@pytest.mark.parametrize(
    ("field", "value"), [("mode", "paper"), ("exchange", "com"), ("account", "1234"), ("bot_id", "other")]
)
def test_a_directory_of_another_identity_is_refused_with_both_named(directory, field, value):
    directory.claim(DEMO)
    directory.release()
    other = Identity(**{f: getattr(DEMO, f) for f in DEMO.__struct_fields__} | {field: value})
    with pytest.raises(DataDirectoryError, match=f"{field} is {getattr(DEMO, field)!r}, not {value!r}"):
        directory.claim(other)
    assert directory.running_pid() is None, "a refusal holds nothing"
    assert directory.identity() == DEMO
    directory.claim(DEMO)


def test_a_book_without_an_identity_is_refused(directory):
    directory.path.mkdir()
    directory.orders.touch()
    with pytest.raises(DataDirectoryError, match=r"holds a book but no identity\.json"):
        directory.claim(DEMO)


def test_an_identity_that_cannot_be_read_is_refused(directory):
    directory.claim(DEMO)
    directory.release()
    (directory.path / "identity.json").write_text("{")
    with pytest.raises(DataDirectoryError, match=r"identity\.json"):
        directory.claim(DEMO)
    assert directory.running_pid() is None


def test_a_path_that_is_no_directory_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryError, match="--data-dir") as refused:
        DataDirectory(tmp_path / "file").claim(DEMO)
    assert "\n" not in str(refused.value)


def test_an_empty_directory_has_no_identity_and_no_process(directory):
    assert (directory.identity(), directory.running_pid(), directory.halted()) == (None, None, None)
    directory.path.mkdir()
    assert directory.free_bytes() > 0


def test_a_halt_outlives_the_process_and_needs_none(directory):
    assert directory.resume() is False
    directory.halt("by hand")
    assert DataDirectory(directory.path).halted() == "by hand"
    directory.claim(DEMO)
    directory.release()
    assert directory.halted() == "by hand"
    assert directory.resume() is True
    assert (directory.halted(), directory.resume()) == (None, False)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_halt_file_with_anything_in_it_halts(directory, content):
    directory.path.mkdir()
    (directory.path / "halt").write_bytes(content)
    assert directory.halted()


def test_a_halt_that_cannot_be_read_halts(directory):
    (directory.path / "halt").mkdir(parents=True)
    assert "cannot be read" in directory.halted()


def test_a_fork_is_no_second_owner(directory):
    """The lock is the process's: a child that was made by spawning inherits nothing of it."""
    directory.claim(DEMO)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=os.getpid)
    child.start()
    child.join(240)
    assert child.exitcode == 0
    assert directory.running_pid() == os.getpid()


# Whose account a book is.

BY_KEY = Identity(mode="testnet", exchange="com@127.0.0.1", account="0123456789ab", bot_id="bulkhead")


def account(name):
    return Identity(BY_KEY.mode, BY_KEY.exchange, name, BY_KEY.bot_id)


@pytest.fixture
def old_book(directory):
    """A book whose account was named by its key, as all were once."""
    directory.claim(BY_KEY)
    directory.orders.touch()
    directory.release()
    directory.lock()
    return directory


def test_a_book_named_by_its_key_takes_the_exchanges_name(old_book):
    old_book.belong_to(account(""))
    assert old_book.identity() == BY_KEY
    old_book.belong_to(account("uid 7"), formerly=frozenset([BY_KEY.account]))
    assert old_book.identity() == account("uid 7")
    # From now on the key may change.
    old_book.belong_to(account("uid 7"), formerly=frozenset(["ba9876543210"]))
    assert old_book.identity() == account("uid 7")


def test_an_exchange_that_names_no_account_keeps_the_keys_name(old_book):
    old_book.belong_to(BY_KEY, formerly=frozenset([BY_KEY.account]))
    assert old_book.identity() == BY_KEY


@pytest.mark.parametrize("new", ["uid 7", "ba9876543210"])
def test_a_new_key_is_refused_with_the_way_to_go_on(old_book, new):
    with pytest.raises(DataDirectoryError) as caught:
        old_book.belong_to(account(new), formerly=frozenset(["ba9876543210"]))
    assert "same account with a new API key" in str(caught.value)
    assert f'"account": "{new}" in {old_book.path / "identity.json"}' in str(caught.value)
    assert old_book.running_pid() is None
    # The way works.
    file = old_book.path / "identity.json"
    file.write_text(file.read_text().replace(BY_KEY.account, new))
    old_book.claim(account(new))


def test_two_accounts_by_the_exchanges_own_names_are_two(directory):
    directory.claim(account("uid 7"))
    with pytest.raises(DataDirectoryError, match=r"account is 'uid 7', not 'uid 8'\); give another --data-dir$"):
        directory.belong_to(account("uid 8"), formerly=frozenset(["0123456789ab"]))


def test_what_differs_is_said_before_the_account_is_known(old_book):
    with pytest.raises(DataDirectoryError, match=r"mode is 'testnet', not 'live'\); give another --data-dir$"):
        old_book.belong_to(Identity("live", BY_KEY.exchange, "", BY_KEY.bot_id))


def test_an_unknown_account_leaves_a_new_directory_unnamed(directory):
    directory.lock()
    directory.belong_to(account(""))
    assert directory.identity() is None
    directory.belong_to(account("uid 7"), formerly=frozenset([BY_KEY.account]))
    assert directory.identity() == account("uid 7")


def test_a_stopped_symbol_refuses_its_own_orders_over_restarts_until_it_is_freed(directory):
    directory.stop_symbol("BTCUSDT", "0.5 BTC are missing")
    directory.stop_symbol("BTCUSDT", "a later reason")
    again = DataDirectory(directory.path)
    assert again.refusal("BTCUSDT", Side.SELL) == "BTCUSDT is stopped: 0.5 BTC are missing"
    assert again.refusal("ETHUSDT", Side.SELL) is None
    assert again.stopped_symbols() == {"BTCUSDT": "0.5 BTC are missing"}
    assert (again.free_symbol("BTCUSDT"), again.free_symbol("BTCUSDT")) == (True, False)
    assert (directory.refusal("BTCUSDT", Side.SELL), directory.stopped_symbols()) == (None, {})


def test_a_halt_refuses_every_symbol(directory):
    directory.halt("by hand")
    assert directory.refusal("BTCUSDT", Side.SELL) == directory.refusal("ETHUSDT", Side.SELL) == "halted: by hand"


@pytest.mark.parametrize(
    ("stop", "sides"),
    [
        (lambda d: d.halt("it said so"), (Side.BUY, Side.SELL)),
        (lambda d: d.stop_symbol("BTCUSDT", "it said so"), (Side.BUY, Side.SELL)),
        (lambda d: d.stop_symbol("", "it said so"), (Side.BUY,)),
    ],
    ids=["halt", "symbol", "entries"],
)
def test_a_halt_or_stop_that_cannot_be_written_holds_all_the_same(directory, monkeypatch, stop, sides):
    """As on a full disk: of all moments not the one to trade on."""

    def is_full(*_):
        raise OSError(28, "No space left on device")

    directory.claim(account("uid 7"))
    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", is_full)
        with pytest.raises(OSError, match="No space"):
            stop(directory)
    for side in Side:
        refusal = directory.refusal("BTCUSDT", side)
        assert (refusal is not None and "it said so" in refusal) == (side in sides)
    assert bool(directory.halted()) != bool(directory.stopped_symbols())
    stop(directory)
    again = DataDirectory(directory.path)
    assert [again.refusal("BTCUSDT", side) for side in sides] == [directory.refusal("BTCUSDT", side) for side in sides]


def test_selling_all_is_wished_for_over_restarts_until_it_is_done_or_called_off(directory):
    directory.halt("by hand", flatten=True)
    assert DataDirectory(directory.path).is_flattening()
    directory.flat()
    assert (directory.is_flattening(), directory.halted()) == (False, "by hand")
    directory.halt("again", flatten=True)
    assert directory.halted() == "by hand", "the first reason stands"
    directory.resume()
    assert (directory.is_flattening(), directory.halted()) == (False, None)


def test_stopped_entries_let_exits_leave(directory):
    directory.stop_symbol("", "3 USDT are missing")
    assert directory.refusal("BTCUSDT", Side.BUY) == "all entries are stopped: 3 USDT are missing"
    assert directory.refusal("BTCUSDT", Side.SELL) is None
    assert directory.stopped_symbols() == {"": "3 USDT are missing"}
    assert directory.free_symbol("")
    assert directory.refusal("BTCUSDT", Side.BUY) is None


def test_stops_that_cannot_be_read_stop_all_orders(directory):
    directory.claim(DEMO)
    (directory.path / "stops").symlink_to("stops")  # a loop: of all users' files, the one that root cannot read either
    (reason,) = directory.stopped_symbols().values()
    assert reason.startswith(f"{directory.path}/stops cannot be read: ")
    assert reason.endswith("; exits are stopped too")
    assert None not in {directory.refusal("BTCUSDT", side) for side in Side}


def test_an_identity_that_cannot_be_read_is_said_with_the_fix(tmp_path):
    no_directory = tmp_path / "file"
    no_directory.write_text("")
    with pytest.raises(DataDirectoryError) as caught:
        DataDirectory(no_directory).identity()
    assert str(caught.value) == (
        f"{no_directory}/identity.json: cannot be read (Not a directory); name a --data-dir that this user may read"
    )


def test_a_pause_outlives_the_process(tmp_path):
    directory = DataDirectory(tmp_path)
    assert directory.pause("api.binance.com") is None
    directory.keep_pause("api.binance.com", 1_794_999_880_123, 1_795_000_000_123, "HTTP 418")
    directory.keep_pause("127.0.0.1:8080", 1_794_999_999_999, 1_795_000_000_999, "HTTP 429")
    again = DataDirectory(directory.path)
    assert again.pause("api.binance.com") == (1_794_999_880_123, 1_795_000_000_123, "HTTP 418")
    assert again.pause("127.0.0.1:8080") == (1_794_999_999_999, 1_795_000_000_999, "HTTP 429")
    directory.keep_pause("127.0.0.1:8080", 1, 2, "")
    assert again.pause("127.0.0.1:8080") == (1, 2, ""), "an exchange need not say why"
    assert again.pause("../../halt") is None


@pytest.mark.parametrize(
    "content", [b"", b"soon", b"\xff\xfe", b"-5 7 x", b"5 -7 x", b"5 x", b"1 " + b"9" * 5000 + b" x"]
)
def test_a_pause_that_cannot_be_read_is_none(tmp_path, content):
    directory = DataDirectory(tmp_path)
    directory.keep_pause("host", 0, 1, "HTTP 418")
    (directory.path / "pauses" / "host").write_bytes(content)
    assert directory.pause("host") is None


def test_a_pause_is_not_kept_where_there_is_no_directory(tmp_path):
    DataDirectory(tmp_path / "none").keep_pause("host", 0, 1, "HTTP 418")
    assert not (tmp_path / "none").exists()
