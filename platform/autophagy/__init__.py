"""Autophagy: study what happens when diffusion models are trained on their own output, and what prevents it."""

from autophagy.recipes import load_recipe

__all__ = ["load_recipe", "run_loop"]


def __getattr__(name: str) -> object:
    # The loop needs torch, which takes seconds to import: only when it is asked for.
    if name == "run_loop":
        from autophagy.loop import run_loop

        return run_loop
    raise AttributeError(f"module 'autophagy' has no attribute {name!r}")
