from autophagy.recipes.load import load_experiment, load_recipe, load_sweep
from autophagy.recipes.loops import RECIPES
from autophagy.recipes.sweeps import SWEEPS

__all__ = ["RECIPES", "SWEEPS", "load_experiment", "load_recipe", "load_sweep"]
