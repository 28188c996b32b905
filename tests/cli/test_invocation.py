"""A command that is told to a person works as typed, from where they are."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import bot
from bot.cli.invocation import typed


@pytest.mark.parametrize(
    ("executable", "folder", "word"),
    [
        ("/srv/bulkhead/.venv/bin/python", "/srv/bulkhead", ".venv/bin/python"),
        ("/srv/bulkhead/.venv/bin/python", "/srv/bulkhead/.venv/bin", "./python"),
        ("/usr/bin/python", "/srv/a/b/c/d", "/usr/bin/python"),
        ("", "/srv", "python3"),
    ],
)
def test_the_interpreter_is_named_the_shorter_way(monkeypatch, executable, folder, word):
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(os, "getcwd", lambda: folder)
    assert typed("status") == f"{word} -m bot.main status"


def test_it_runs_as_typed():
    said = typed("trades", "--help", data_dir=Path("my data"))
    assert shlex.split(said)[-2:] == ["--data-dir", "my data"]
    root = Path(bot.__file__).parents[1]
    ended = subprocess.run(
        typed("trades", "--help"),
        shell=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
