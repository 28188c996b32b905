"""The README's example does what the README says."""

import re
import subprocess
import sys
from pathlib import Path

import bot.supervision

README = Path(bot.supervision.__file__).with_name("README.md")


def test_the_example_runs() -> None:
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("served")] == [
        "served: Order(dish='tart')",
        "served: Order(dish='soufflé')",
        "served: Order(dish='cake')",
    ]
    assert sum(line.startswith("ActorFailed(name='cook/pastry', epoch=1, phase='handle'") for line in lines) == 1
    assert "left behind: ()" in lines


def test_the_library_imports_nothing_of_the_project() -> None:
    folder = README.parent
    for path in folder.glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.match(r"\s*(from|import) bot\b", line), (path.name, line)


def test_the_library_uses_no_private_name_of_pykka() -> None:
    hooks = {"_create_actor_inbox", "_start_actor_loop"}  # for makers of actor types, by their docstrings
    private = set()
    for path in README.parent.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        private |= set(re.findall(r"\b_(?:actor_\w+|handle_\w+|stop\b|ActorStop)|\bEnvelope\b", source))
        private |= set(re.findall(r"pykka\._\w+|from pykka\._\w+", source))
    assert private - hooks == set()
