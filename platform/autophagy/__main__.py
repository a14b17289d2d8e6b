"""`python -m autophagy`: the command line where the `autophagy` script is not on the path."""

from autophagy.cli import main

main()
