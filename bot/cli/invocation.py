"""How a person types a command of this program, from the directory in which it runs."""

import os
import shlex
import sys
from pathlib import Path


def typed(*arguments: str, data_dir: Path | None = None) -> str:
    """Return a command line that works as it stands in the working directory, its words quoted for a shell."""
    words = [_python(), "-m", "bot.main", *arguments]
    words += ["--data-dir", str(data_dir)] if data_dir is not None else []
    return shlex.join(words)


def _python() -> str:
    python = sys.executable or "python3"
    try:
        near = os.path.relpath(python)
    except OSError:  # the working directory is gone
        return python
    near = near if os.sep in near else os.path.join(os.curdir, near)
    return near if sys.executable and len(near) < len(python) else python
