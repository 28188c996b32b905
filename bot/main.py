"""`python -m bot.main`: hands the arguments to the command line and returns its exit status."""

import sys

from bot.cli.parser import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
