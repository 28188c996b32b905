"""`python -m bot.main`: hands the arguments to the command line and returns its exit status."""

import sys

from bot.cli.parser import main


def run() -> None:
    """Run the command line of this process and exit with its status."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
