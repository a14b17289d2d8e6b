"""Autophagy: study what happens when diffusion models are trained on their own output, and what prevents it."""

from autophagy.recipes import load_recipe

__all__ = ["load_recipe", "run_loop", "run_sweep"]


def __getattr__(name: str) -> object:
    # Loops need torch, which takes seconds to import: only when they are asked for.
    if name == "run_loop":
        from autophagy.loop import run_loop

        return run_loop
    if name == "run_sweep":
        from autophagy.sweeps.sweep import run_sweep

        return run_sweep
    raise AttributeError(f"module 'autophagy' has no attribute {name!r}")
