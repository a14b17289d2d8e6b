"""When a loop is not worth going on with: plain rules on the metrics of its generations so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autophagy.config.sweep import Stopping

WARNING_SIGNS = ("entropy_synthetic", "confidence")  # both fall when a loop collapses


def why_stop(rule: Stopping, generations: int, history: Sequence[Mapping[str, float]]) -> str | None:
    """Why a loop should end after its latest generation; None if it should go on.

    Args:
        rule: What to look at; `asha` compares loops and is not looked at here.
        generations: How many the loop is to have after generation 0.
        history: Metrics of generations 0, 1, ...
    """
    if len(history) > generations:  # there is nothing left to stop
        return None
    first, last = history[0].get("fid", math.nan), history[-1].get("fid", math.nan)
    if rule.collapse_factor is not None and last > rule.collapse_factor * first:
        return f"collapsed: FID {last:.4g} is over {rule.collapse_factor:g} times {first:.4g} of generation 0"
    if rule.false_alarm_rate is not None:
        level = rule.false_alarm_rate / max(1, generations - 1)  # a look after every generation but 0 and the last
        p_values = [falling([metrics.get(sign, math.nan) for metrics in history]) for sign in WARNING_SIGNS]
        if max(p_values) <= level:
            return f"early warning: {' and '.join(WARNING_SIGNS)} fall steadily (p = {max(p_values):.2g})"
    return None


def falling(values: Sequence[float]) -> float:
    """Chance that values in random order fall as steadily as these or more: Mann and Kendall's exact test.

    With a level of `false_alarm_rate` over the number of looks, a loop whose generations are exchangeable is stopped
    with at most that probability. n values can reach 1 / n!. Ties and missing values count as no fall.
    """
    from scipy.stats import kendalltau

    if len(values) < 2 or not all(map(math.isfinite, values)):
        return 1.0
    # Ranks without ties: of equals the later one counts as higher.
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    ranks = {position: rank for rank, position in enumerate(order)}
    in_time = [ranks[i] for i in range(len(values))]
    return float(kendalltau(range(len(values)), in_time, method="exact", alternative="less").pvalue)
