"""Draws docs/live-view.svg: the live view of a demo that ran for half a minute."""

import io
import re
import tempfile
import threading
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from bot.app.system import BotSystem
from bot.cli.view import render
from bot.config import load_settings
from bot.supervision import SystemClock

WIDTH, HEIGHT, SECONDS = 100, 30, 45

with tempfile.TemporaryDirectory() as directory:
    system = BotSystem(load_settings({"data_dir": directory, "simulator_seed": 7}, environment={}))
    system.start()
    threading.Event().wait(SECONDS)
    snapshot = system.snapshot()
    system.stop()
console = Console(record=True, width=WIDTH, force_terminal=True, color_system="truecolor", file=io.StringIO())
console.print(render(snapshot, WIDTH, SystemClock().now_ms(), HEIGHT))
svg = console.export_svg(title="python -m bot.main", theme=MONOKAI)
# The fonts that rich would fetch from the web are left out: a picture asks nobody for anything.
Path(__file__).with_name("live-view.svg").write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S))
