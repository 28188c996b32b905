"""`actors`, `dead-letters`, SIGUSR1 and systemd's notifications on a real, running bot."""

import signal

import pytest

from bot.app.control import ControlError, ask
from tests.integration.processes import Program, command, status_of, told, wait_until
from tests.support.notify_socket import listening


@pytest.fixture
def bot(tmp_path):
    with Program("run", "--allow-chaos", "--data-dir", tmp_path / "data", cwd=tmp_path) as program:
        wait_until(lambda: all_run(tmp_path), 20, "all actors run")
        yield program


def all_run(path):
    status = status_of(path / "data")
    return status is not None and {actor["state"] for actor in status["actors"]} == {"running"}


def actors(path):
    return {actor["name"]: actor for actor in told("actors", "list", "--data-dir", path / "data", cwd=path)}


def kill(path, name, how="raise"):
    return command("actors", "kill", name, "--how", how, "--data-dir", path / "data", cwd=path)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(("feed/BTCUSDT", how) for how in ("raise", "exit", "vanish")),
        pytest.param("feed/BTCUSDT", "hang", marks=pytest.mark.alone),  # found after eight of them
        ("stream/0", "raise"),
    ],
)
def test_a_killed_actor_runs_again_within_ten_seconds_and_no_other_notices(bot, tmp_path, name, how):
    before = actors(tmp_path)
    assert kill(tmp_path, name, how).returncode == 0
    failed = wait_until(lambda: bot.events("ActorFailed"), 15, "the actor dies")
    back = wait_until(lambda: bot.events("ActorRestarted"), 15, "the actor is back")
    assert [event["name"] for event in (*failed, *back)] == [name] * 2
    assert back[0]["downtime_ms"] < 10_000
    after = actors(tmp_path)
    assert after[name]["state"] == "running"
    assert after[name]["epoch"] == 2
    assert all(after[other]["epoch"] == 1 for other in before if other != name)


def test_a_kill_is_refused_in_one_line_where_it_makes_no_sense(bot, tmp_path):
    for name in ("feed/NONEUSDT", "nobody"):
        refused = kill(tmp_path, name)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert name in refused.stderr
    for unnamed in (("actors", "kill"), ("dead-letters", "retry")):
        refused = command(*unnamed, "--data-dir", tmp_path / "data", cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert " needs a N" in refused.stderr
    released = command("actors", "release", "feed/BTCUSDT", "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert (released.returncode, "quarantine" in released.stderr) == (1, True)
    dropped = command("dead-letters", "drop", 7, "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert (dropped.returncode, "7" in dropped.stderr) == (1, True)
    assert told("dead-letters", "list", "--data-dir", tmp_path / "data", cwd=tmp_path) == []
    with pytest.raises(ControlError, match="unknown command 'dance'; known are status"):
        ask(tmp_path / "data" / "control.sock", {"command": "dance"})


def test_the_death_of_the_supervisor_ends_the_process_in_order(bot, tmp_path):
    assert kill(tmp_path, "supervisor").returncode == 0
    assert bot.ends(timeout_s=15) == 1
    assert "supervisor" in bot.said


def test_the_stacks_of_all_threads_by_their_actors_names(bot):
    bot.send(signal.SIGUSR1)
    wait_until(lambda: "Current state of trader/ETHUSDT" in bot.said, 10, "the trader's stack")
    assert bot.is_running


def test_without_allow_chaos_nobody_is_killed(tmp_path):
    with Program("run", "--data-dir", tmp_path / "data", cwd=tmp_path):
        wait_until(lambda: all_run(tmp_path), 20, "all actors run")
        refused = kill(tmp_path, "feed/BTCUSDT")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "--allow-chaos" in refused.stderr


def test_systemd_hears_of_start_life_and_end(tmp_path):
    settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    with listening(tmp_path / "notify") as heard:
        with Program("run", "--data-dir", tmp_path / "data", cwd=tmp_path, settings=settings) as program:
            wait_until(lambda: heard.count("WATCHDOG=1") >= 2, 20, "the watchdog is fed")
            program.send(signal.SIGTERM)
            assert program.ends() == 0
        wait_until(lambda: "STOPPING=1" in first_lines(heard), 10, "the last word")
    assert first_lines(heard)[:3] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert set(first_lines(heard)) == {"READY=1", "WATCHDOG=1", "STOPPING=1"}


def first_lines(heard):
    """What was told to systemd that is more than a status."""
    firsts = (said.partition("\n")[0] for said in tuple(heard))
    return [first for first in firsts if not first.startswith("STATUS=")]
