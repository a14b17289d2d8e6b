"""Selecting and scoring files of features from the command line, without a run."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autophagy.cli import main
from autophagy.common.errors import UserError
from autophagy.metrics import METRICS
from autophagy.metrics.distribution import frechet_distance
from autophagy.metrics.manifold import precision_recall
from autophagy.metrics.memorization import generalization_score
from autophagy.standalone.score import score_sets
from autophagy.standalone.select import parse_keep, read_candidates

N, DIM = 60, 4


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


X = rng().normal(size=(N, DIM)).astype(np.float32)
LABELS = np.arange(N) % 3
CONFIDENCE = rng(1).random(N).astype(np.float32)
IS_REAL = np.arange(N) < 12


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A working directory with files of features; no Ray to be had."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    np.save("x.npy", X)
    np.savez("x.npz", features=X, label=LABELS, confidence=CONFIDENCE, is_real=IS_REAL, unknown=np.zeros(2))
    np.save("real.npy", rng(2).normal(size=(80, DIM)))
    return tmp_path


def command(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.err) == (0, "")
    return captured.out


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1
    return captured.err


def select(
    capsys, features: str = "x.npy", *more: str, strategy: str = "random", keep: str = "0.2", out: str = "k.npy"
):
    """What the command prints, and the rows it kept."""
    text = command(capsys, "select", features, "--strategy", strategy, "--keep", keep, "--out", out, *more)
    return text, np.load(out) if out.endswith(".npy") else None


class TestCandidates:
    def test_what_is_not_said_has_a_default(self):
        candidates = read_candidates("x.npy", {"features"})
        np.testing.assert_array_equal(candidates.features, X)
        np.testing.assert_array_equal(candidates.sample_id, np.arange(N))
        assert not candidates.is_real.any()
        assert (candidates.label == -1).all()
        assert candidates.confidence is None
        assert read_candidates("x.npy", {"features"}, origin=-1).is_real.all()

    def test_origin_by_is_real_or_by_generation(self):
        np.testing.assert_array_equal(read_candidates("x.npz", set()).is_real, IS_REAL)
        generation = np.arange(N) % 4 - 1
        np.savez("g.npz", generation=generation, is_real=IS_REAL)
        np.testing.assert_array_equal(read_candidates("g.npz", set()).generation, generation)

    def test_only_what_is_needed_is_read(self):
        assert read_candidates("x.npz", {"confidence"}).features is None

    def test_ids_must_differ(self):
        np.savez("x.npz", features=X, sample_id=LABELS)
        with pytest.raises(UserError, match="sample_id repeats"):
            read_candidates("x.npz", {"features"})


@pytest.mark.parametrize(("text", "keep"), [("1", 1), ("1000", 1000), ("0.2", 0.2), ("1.0", 1.0), ("1e-3", 0.001)])
def test_keep(text, keep):
    assert parse_keep(text) == keep
    assert type(parse_keep(text)) is type(keep)


@pytest.mark.parametrize("text", ["0", "0.0", "-3", "1.5", "-0.2", "nan", "inf", "1e3", "half", "", "²", "20%"])
def test_keep_that_is_no_amount(text):
    with pytest.raises(UserError, match="--keep"):
        parse_keep(text)


class TestSelect:
    def test_is_the_selector_with_the_seed(self, capsys):
        for seed in (0, 7):
            text, kept = select(capsys, "x.npy", "--seed", str(seed))
            assert text.startswith("kept 12 of 60, by random in ")
            np.testing.assert_array_equal(kept, rng(seed).permutation(N)[:12])

    @pytest.mark.parametrize(("keep", "num"), [("0.1", 6), ("7", 7), ("0.001", 1), ("1.0", N), ("1", 1), ("1000", N)])
    def test_shares_and_numbers(self, capsys, keep, num):
        assert len(select(capsys, keep=keep)[1]) == num

    def test_settings_columns_and_what_is_told(self, capsys):
        text, kept = select(capsys, "x.npz", "--set", "per_class=true", strategy="lsf", keep="6")
        assert np.bincount(LABELS[kept]).tolist() == [2, 2, 2]
        best = max(np.flatnonzero(LABELS == 0), key=CONFIDENCE.__getitem__)
        assert kept[0] == best
        assert f"{IS_REAL[kept].mean():.1%} real (20.0% of all), classes 0: 2, 1: 2, 2: 2" in text

    def test_many_classes_are_told_shortly(self, capsys):
        np.savez("x.npz", features=X, label=np.arange(N))
        assert "60 classes of 0 to 1" in select(capsys, "x.npz")[0]

    @pytest.mark.parametrize("out", ["k.parquet", "k.csv"])
    def test_a_table_of_the_kept(self, capsys, out):
        ids = 1000 + rng(3).permutation(N)
        np.savez("x.npz", sample_id=ids, confidence=CONFIDENCE)
        select(capsys, "x.npz", strategy="lsf", keep="5", out=out)
        if out.endswith("csv"):
            with open(out) as stream:
                rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
        else:
            rows = pq.read_table(out).to_pylist()
        best = np.argsort(-CONFIDENCE)[:5]
        assert [row["index"] for row in rows] == best.tolist()
        assert [row["sample_id"] for row in rows] == ids[best].tolist()
        assert [row["score"] for row in rows] == pytest.approx(CONFIDENCE[best].tolist())

    def test_no_score_no_column(self, capsys):
        select(capsys, out="k.parquet")
        assert pq.read_table("k.parquet").column_names == ["index", "sample_id"]

    def test_a_reference_of_real_images(self, capsys):
        np.save("near.npy", X[:20])
        np.save("x.npy", np.concatenate([X + 20, X]))
        _, kept = select(capsys, "x.npy", "--reference", "near.npy", strategy="density_ratio", keep="0.5")
        assert (kept >= N).all()

    def test_rows_that_are_not_finite_come_last(self, capsys):
        confidence = CONFIDENCE.copy()
        confidence[[3, 5]] = np.nan
        np.savez("x.npz", confidence=confidence)
        text, kept = select(capsys, "x.npz", strategy="lsf", keep="1.0")
        assert "note: 2 of 60 rows" in text
        assert kept[-2:].tolist() == [3, 5]

    def test_what_the_platform_wrote(self, capsys):
        # The columns of a `score` artifact.
        table = {
            "sample_id": np.arange(N) + (1 << 40),
            "generation": np.zeros(N, np.int32),
            "is_real": np.zeros(N, bool),
            "label": LABELS,
            "features": pa.FixedShapeTensorArray.from_numpy_ndarray(X),
            "confidence": CONFIDENCE,
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((N, 8, 8, 1), np.uint8)),
        }
        pq.write_table(pa.table(table), "x.parquet")
        np.testing.assert_array_equal(
            select(capsys, "x.parquet", strategy="lsf")[1], select(capsys, "x.npz", strategy="lsf")[1]
        )

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["none.npy"], "none.npy: no such file"),
            (["x.txt"], "x.txt: cannot tell"),
            (["x.npy", "--keep", "2.5"], "--keep 2.5"),
            (["x.npy", "--out", "k.txt"], "--out k.txt"),
            (["x.npy", "--out", "nowhere/k.npy"], "--out nowhere/k.npy"),
            (["x.npy", "--out", "x.npy"], "--out x.npy: is read from"),
            (["x.npy", "--strategy", "rnadom"], "did you mean random?"),
            (["x.npy", "--set", "colour=3"], "selection.colour = 3"),
            (["x.npy", "--set", "per_class"], "--set per_class"),
            (["x.npy", "--set", "per_class=true"], "needs labels"),
            (["x.npy", "--strategy", "lsf"], "needs confidence, and the candidates have none"),
            (["x.npy", "--strategy", "kmeans", "--set", "feature_space=latent"], "needs latent"),
            (["x.npy", "--strategy", "density_ratio"], "there are none"),
            (["x.npy", "--strategy", "density_ratio", "--reference", "wide.npy"], "width 9, not 4"),
            (["x.npy", "--seed", "-1"], "--seed"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_selected(self, capsys, workplace, arguments, told):
        (workplace / "x.txt").write_text("1 2")
        np.save("wide.npy", np.ones((5, 9)))
        before = sorted(workplace.iterdir())
        defaults = ["--strategy", "random", "--keep", "0.2", "--out", "k.npy"]
        assert told in refused(capsys, "select", arguments[0], *defaults, *arguments[1:])
        assert sorted(workplace.iterdir()) == before

    def test_every_needed_column_reaches_the_candidates(self):
        columns = {
            "latent": X + 1,
            "pixels": np.full((N, 6), 9, np.uint8),
            "denoising_error": CONFIDENCE + 1,
            "trajectory_variance": CONFIDENCE + 2,
            "confidence": CONFIDENCE,
        }
        np.savez("x.npz", **columns)
        candidates = read_candidates("x.npz", columns)
        for name, column in columns.items():
            np.testing.assert_array_equal(getattr(candidates, name), column)


def synthetic_of(width: int) -> dict[str, np.ndarray]:
    return {"features": rng(6).normal(size=(60, width))}


class TestScore:
    def sets(self):
        real, synthetic = rng(2).normal(size=(100, DIM)), 0.5 * rng(3).normal(size=(80, DIM)) + 1
        return {"features": real}, {"features": synthetic}, {"features": rng(4).normal(size=(50, DIM))}

    def test_is_what_the_metrics_say(self):
        real, synthetic, training = self.sets()
        scores = score_sets(real, synthetic, training, k=3)
        x, y, z = real["features"], synthetic["features"], training["features"]
        assert scores.metrics["fid"] == pytest.approx(frechet_distance(x, y))
        assert (scores.metrics["precision"], scores.metrics["recall"]) == precision_recall(x, y, 3)
        assert scores.metrics["generalization_score"] == pytest.approx(generalization_score(y, z))
        assert scores.metrics["real_baseline"] == pytest.approx(generalization_score(x, z))
        assert set(scores.metrics) <= set(METRICS)
        undefined = {key for key, value in scores.metrics.items() if np.isnan(value)}
        assert undefined == {"spectrum_8", "spectrum_16"}  # of features of four directions
        assert scores.num_rows == {"real": 100, "synthetic": 80, "training": 50}

    def test_only_what_the_files_allow(self):
        real, synthetic, _ = self.sets()
        plain = score_sets(real, synthetic).metrics
        assert {"fid", "kid", "kid_std", "density", "coverage", "entropy_synthetic", "vendi"} <= set(plain)
        absent = {"entropy", "memorization_ratio", "class_histogram", "label_agreement", "real_share", "confidence"}
        assert not absent & set(plain)
        real["label"], synthetic["label"] = np.zeros(100, int), np.arange(80) % 4
        assert score_sets(real, synthetic).metrics["class_histogram"] == pytest.approx(0.75)

    def test_the_floor_is_real_against_real(self):
        real, synthetic, _ = self.sets()
        floor = score_sets(real, synthetic).real_vs_real
        assert set(floor) == {"fid", "kid", "precision", "recall", "density", "coverage"}
        assert 0 < floor["fid"] < score_sets(real, synthetic).metrics["fid"] / 5
        assert floor == score_sets(real, synthetic).real_vs_real
        assert floor != score_sets(real, synthetic, seed=1).real_vs_real
        # Halves that shared a row would find it in both.
        assert (
            score_sets({"features": rng(5).normal(size=(60, 20))}, synthetic_of(20), k=1).real_vs_real["precision"]
            < 0.9
        )
        few = {"features": real["features"][:8]}
        assert score_sets(few, synthetic, k=5).real_vs_real == {}

    def test_a_copied_training_set_is_seen(self):
        real, _, training = self.sets()
        metrics = score_sets(real, training, training).metrics
        assert metrics["memorization_ratio"] == 1
        assert metrics["generalization_score"] == 0

    def test_prints_a_table_and_writes_json(self, capsys):
        real, synthetic, training = self.sets()
        np.savez("synthetic.npz", **synthetic)
        np.save("training.npy", training["features"])
        arguments = ["score", "real.npy", "synthetic.npz", "--training", "training.npy", "--k", "3"]
        text = command(capsys, *arguments, "--out", "scores.json")
        with open("scores.json") as stream:
            written = json.load(stream)
        real["features"] = np.load("real.npy")
        expected = score_sets(real, synthetic, training, k=3)
        assert written == expected.to_json()
        assert [line.split()[0] for line in text.splitlines() if line[:1].strip()][1 : len(expected.metrics) + 1] == [
            *expected.metrics
        ]
        fid = next(line for line in text.splitlines() if line.startswith("fid"))
        assert f"{expected.metrics['fid']:.4g}" in fid
        assert "lower" in fid
        assert "S_k" not in text
        assert "real vs real: two random halves, 40 rows each" in text
        assert "compare only" not in text  # 80 and 80

    def test_different_sizes_are_told(self, capsys):
        assert "note: 80 real and 60 synthetic rows" in command(capsys, "score", "real.npy", "x.npy")

    def test_too_few_rows_are_said_to_be(self, capsys):
        np.save("few.npy", X[:3])
        text = command(capsys, "score", "few.npy", "few.npy", "--out", "few.json")
        assert "note: undefined: it takes more rows" in text
        assert "undefined" in next(line for line in text.splitlines() if line.startswith("precision"))
        with open("few.json") as stream:
            assert json.load(stream)["metrics"]["precision"] is None

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["real.npy", "none.npy"], "none.npy: no such file"),
            (["real.npy", "wide.npy"], "synthetic: features of width 9, not 4"),
            (["real.npy", "x.npy", "--training", "wide.npy"], "training: features of width 9"),
            (["real.npy", "nan.npy"], "nan.npy: 2 rows of features are not finite, the first is row 4"),
            (["real.npy", "label.npz"], "label.npz: has no column features"),
            (["real.npy", "x.npy", "--out", "scores.csv"], "--out scores.csv"),
            (["real.npy", "x.npy", "--k", "0"], "--k"),
            (["real.npy"], "synthetic"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_scored(self, capsys, arguments, told):
        np.save("wide.npy", np.ones((5, 9)))
        bad = X.copy()
        bad[[4, 9], 1] = np.nan
        np.save("nan.npy", bad)
        np.savez("label.npz", label=LABELS)
        assert told in refused(capsys, "score", *arguments)


@pytest.mark.parametrize("name", ["select", "score"])
def test_help_explains_every_option(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    text = command(capsys, name, "--help")
    options = {"select": ["--strategy", "density_ratio", "--keep", "--set", "--reference"], "score": ["--training"]}
    for words in ["--seed", "--out", *options[name]]:
        assert words in text
