"""What no source file may do, and why."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bot

SOURCES = sorted(Path(bot.__file__).parent.rglob("*.py"))

RACE = """
import sys, threading, msgspec
from bot.adapters.binance import client

sys.setswitchinterval(1e-6)
body = b'{"balances": [{"asset": "BTC", "free": "1"}]}'
for _ in range(300):
    balance = msgspec.defstruct("Balance", [("asset", str), ("free", str)])
    account = msgspec.defstruct("Account", [("balances", list[balance]), ("uid", int, 0)])
    together = threading.Barrier(4)

    def decode():
        together.wait()
        for _ in range(20):
            client._decoder(account).decode(body)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_struct_is_never_decoded_by_a_plan_made_in_passing(source: Path) -> None:
    """msgspec 0.22 crashes the process where two threads make a struct's first plan at once: `Decoder`s are kept."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            assert called not in ("msgspec.json.decode", "msgspec.convert", "msgspec.toml.decode") or not any(
                keyword.arg == "type" for keyword in node.keywords
            ), f"{source.name}:{node.lineno}: {called} with a type; keep a msgspec.json.Decoder instead"


def test_many_threads_may_decode_the_first_reply_of_a_kind() -> None:
    ended = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, f"{ended.returncode}: {ended.stderr}"
