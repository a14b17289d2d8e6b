"""Quality against cost: arms that nobody beats in both."""

from __future__ import annotations

import pandas as pd
import pytest

from autophagy.common.errors import UserError
from comparisons import pareto


def test_pareto_arms_are_those_nobody_beats_in_both(frame_of):
    frames = [
        frame_of({(arm, seed): {"fid": [1.0, fid + seed]} for seed in (0, 2)}, {arm: []}, states, 1, seconds)
        for arm, fid, seconds, states in (
            ("cheap", 50.0, 1.0, {}),
            ("good", 5.0, 9.0, {}),
            ("beaten", 50.0, 2.0, {}),
            ("twin", 5.0, 9.0, {}),
        )
    ]
    early = frame_of({("early", 0): {"fid": [1.0]}}, {"early": []}, {("early", 0): "stopped"}, asked=1)
    table = pareto.pareto_table(pd.concat([*frames, early]), "fid").set_index("arm")
    assert table["efficient"].to_dict() == {
        "cheap": True,
        "good": True,
        "beaten": False,
        "twin": True,
        "early": False,  # without a cost only because it was stopped
    }
    assert table["value"].to_dict() == {"cheap": 51.0, "good": 6.0, "beaten": 51.0, "twin": 6.0, "early": 1.0}
    assert table["seconds"].to_dict() == {"cheap": 1.0, "good": 9.0, "beaten": 2.0, "twin": 9.0, "early": 0.0}
    assert pareto.draw_pareto(pd.concat(frames), "fid").startswith(b"\x89PNG")
    with pytest.raises(UserError, match="metric = feature_variance"):
        pareto.pareto_table(frame_of({("a", 0): {"feature_variance": [1.0, 2.0]}}), "feature_variance")
