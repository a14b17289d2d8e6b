"""The exported table, as frame and as LaTeX."""

from __future__ import annotations

from comparisons import export


def test_the_table_has_the_best_in_bold_and_marks_what_is_not_decided(frame_of):
    ends = {"random": [100.0, 107.0, 114.0], "bad_arm": [150.0, 158.0, 166.0], "lsf": [99.0, 109.0, 111.0]}
    curves = {(arm, seed): {"fid": [10.0, 10.0, end]} for arm, own in ends.items() for seed, end in enumerate(own)}
    curves["lsf", 2] = {"fid": [10.0, 10.0]}
    frame = frame_of(curves, states={("lsf", 2): "stopped"}, asked=2)
    table = export.arms_table(frame, ["fid"])
    assert table[["arm", "verdict", "best", "early"]].to_numpy().tolist() == [
        ["random", "baseline", False, 0],
        ["bad_arm", "worse", False, 0],
        ["lsf", "not decisive", True, 1],
    ]
    latex = export.to_latex(table, "What 50% do.")
    assert r"\toprule" in latex
    assert r"\caption{What 50\% do. Last generation: mean [smallest and largest value] over 3 seeds." in latex
    assert r"random & 107 {\scriptsize [100, 114]} \\" in latex
    assert r"bad\_arm & 158 {\scriptsize [150, 166]} \\" in latex
    assert r"lsf$^{\dagger}$ & \textbf{72.7} {\scriptsize [10.0, 109]}$^{\circ}$ \\" in latex
    assert latex.count("{") == latex.count("}")


def test_names_are_escaped():
    assert export.escape(r"a_b & 5% #1 {x} ~^\ $") == (
        r"a\_b \& 5\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    )
