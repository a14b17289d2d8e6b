from autophagy.cli.app import main
from autophagy.cli.console import DEFAULT_STORE, fail

__all__ = ["DEFAULT_STORE", "fail", "main"]
