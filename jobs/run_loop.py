"""Entry point of one loop for `ray job submit`: the arguments of `autophagy run`."""

import sys

from autophagy.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
