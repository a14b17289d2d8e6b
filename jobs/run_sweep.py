"""Entry point for `ray job submit`: takes the arguments of `autophagy sweep`."""

import sys

from autophagy.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
