"""`python -m bot.main`: hands the arguments to the command line and returns its exit status."""

import os
import signal
import sys


def run() -> None:
    """Run the command line of this process and exit with its status."""
    if os.getpid() == 1:
        # The first process of a container gets no signal that it has no handler for, and a stop would wait in vain.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _open_closed_streams()
    from bot.cli.parser import main

    sys.exit(main(sys.argv[1:]))


def _open_closed_streams() -> None:
    """Let a standard stream that was closed (`>&-`) be /dev/null, before a file of ours takes its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


if __name__ == "__main__":
    run()
