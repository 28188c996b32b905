"""`check`: each subject a line, ok or the fix, also before there is a book."""

import re
import socket

import pytest

from bot.app.data_directory import DataDirectory, Identity
from bot.cli.parser import main
from tests.support.ports import unused_port

A_BOOK = Identity("demo", "simulated", "paper", "bulkhead")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "not" / "yet"


def checked(capsys, data):
    status = main(["check", "--data-dir", str(data)])
    return status, capsys.readouterr().out


def test_a_directory_that_is_not_there_yet_is_made_nowhere(capsys, data):
    status, said = checked(capsys, data)
    assert (status, data.parent.exists()) == (0, False)
    assert f"{data} holds no book yet" in said
    assert "MB free" in said


@pytest.mark.parametrize("has_book", [False, True])
def test_too_little_space_is_said_with_and_without_a_book(capsys, data, monkeypatch, has_book):
    if has_book:
        directory = DataDirectory(data)
        directory.claim(A_BOOK)
        directory.release()
    monkeypatch.setattr(DataDirectory, "free_bytes", lambda self: 3_000_000)
    status, said = checked(capsys, data)
    assert status == 1
    assert f"wrong data directory: {data}: only 3 MB free" in said


def test_a_directory_that_cannot_be_made_is_said(capsys, data):
    data.parent.write_text("a file where a directory would be")
    status, said = checked(capsys, data)
    assert status == 1
    assert f"wrong data directory: {data}" in said


def test_stops_that_cannot_be_read_are_a_line(capsys, data):
    directory = DataDirectory(data)
    directory.claim(A_BOOK)
    directory.release()
    (data / "stops").symlink_to("stops")
    status, said = checked(capsys, data)
    assert status == 1
    assert f"wrong entries: stopped: {data}/stops cannot be read" in said


def test_a_halt_is_wrong_until_it_is_resumed(capsys, data):
    directory = DataDirectory(data)
    directory.claim(A_BOOK)
    directory.release()
    assert main(["halt", "--data-dir", str(data)]) == 0
    capsys.readouterr()
    status, said = checked(capsys, data)
    assert status == 1
    (line,) = (line for line in said.splitlines() if line.startswith("wrong"))
    assert line.startswith("wrong halt: halted by ")
    assert line.endswith(
        f"resume with: {line.partition('with: ')[2].split(' -m ')[0]} -m bot.main resume --data-dir {data}"
    )
    assert main(["resume", "--data-dir", str(data)]) == 0
    assert checked(capsys, data)[0] == 0


def test_metrics_are_shown_to_be_takeable_and_servable(capsys, data, monkeypatch, moto_url, aws_credentials):
    settings = {
        "BOT_CLOUDWATCH__NAMESPACE": "Bulkhead",
        "BOT_AWS__ENDPOINT_URL": moto_url,
        "BOT_AWS__REGION": "eu-central-1",
        "BOT_METRICS__PORT": str(unused_port()),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    status, said = checked(capsys, data)
    assert status == 0
    assert "ok    cloudwatch: takes metrics in Bulkhead, 9 series, within the ten that are free" in said
    assert f"ok    metrics: http://127.0.0.1:{settings['BOT_METRICS__PORT']}/metrics can be served" in said
    monkeypatch.setenv("BOT_CLOUDWATCH__DETAIL", "full")
    assert re.search(r"Bulkhead, about \d+ series, \d+\.\d\d dollars a month", checked(capsys, data)[1])
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status, said = checked(capsys, data)
    assert status == 1
    assert f"wrong cloudwatch: cloudwatch.namespace Bulkhead at {moto_url}: AWS credentials are needed" in said


def test_a_port_that_is_taken_is_wrong_but_by_the_bot_itself(capsys, data, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("BOT_METRICS__PORT", str(port))
        status, said = checked(capsys, data)
        assert status == 1
        assert f"wrong metrics: metrics.port: cannot listen on 127.0.0.1:{port}: Address already in use; name" in said
        directory = DataDirectory(data)
        directory.claim(A_BOOK)
        assert f"ok    metrics: http://127.0.0.1:{port}/metrics, served by the running bot" in checked(capsys, data)[1]
        directory.release()
