from autophagy.config.experiment import Experiment, parse
from autophagy.config.settings import override

__all__ = ["Experiment", "override", "parse"]
