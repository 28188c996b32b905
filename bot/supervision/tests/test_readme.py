"""The README's example does what the README says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1]
README = FOLDER / "README.md"
PACKAGE = __name__.removesuffix(".tests.test_readme")  # "supervision" where it was lifted out


def test_the_example_runs() -> None:
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    code = code.replace("from bot.supervision import", f"from {PACKAGE} import")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("served")] == [
        "served: Order(dish='tart')",
        "served: Order(dish='soufflé')",
        "served: Order(dish='cake')",
    ]
    assert sum(line.startswith("ActorFailed(name='cook/pastry', epoch=1, phase='handle'") for line in lines) == 1
    assert "left behind: ()" in lines


def test_the_library_imports_only_pykka_and_what_python_has() -> None:
    foreign: set[str] = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                foreign.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                foreign.add(str(node.module).split(".")[0])
    assert foreign - set(sys.stdlib_module_names) == {"pykka"}


def test_the_library_uses_no_private_name_of_pykka() -> None:
    hooks = {"_create_actor_inbox", "_start_actor_loop"}  # for makers of actor types, by their docstrings
    private = set()
    for path in FOLDER.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        private |= set(re.findall(r"\b_(?:actor_\w+|handle_\w+|stop\b|ActorStop)|\bEnvelope\b", source))
        private |= set(re.findall(r"pykka\._\w+|from pykka\._\w+", source))
    assert private - hooks == set()
