"""Whatever a user gets wrong ends before any compute: exit code 2, one line that says what to mend, nothing left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from autophagy.cli import main

STORE = "new-store"
FILES = {
    "list.yaml": b"- 1\n- 2\n",
    "broken.yaml": b"a: [1\nb: {",
    "binary.yaml": bytes(range(256)),
    "empty.yaml": b"",
    "unknown_section.yaml": b"data: {source: digits}\nmodels: {}\n",
    "no_source.yaml": b"seed: 1\n",
    "flat_data.yaml": b"data: digits\n",
    "flat_selection.yaml": b"data: {source: digits}\nselection: lsf\n",
    "no_strategy.yaml": b"data: {source: digits}\nselection: {per_class: true}\n",
    "date.yaml": b"data: {source: digits}\nseed: 2020-01-01\n",
    "itself.yaml": b"data: &a {source: digits, labels: *a}\n",
    "tagged.yaml": b"data: !!python/object/apply:os.getcwd []\n",
    "two words.yaml": b"data: {source: digits}\n",
    "foreign": b"not a store\n",
    "images/notes.txt": b"no image\n",
}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A working directory of its own, no Ray to be had, no tracking from outside."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "folder.yaml").mkdir()
    np.savez(tmp_path / "grey.npz", image=np.zeros((4, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)  # any import of it fails from here on
    return tmp_path


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(capsys, *arguments: str) -> str:
    """The one line that a command ends with; fails if it leaves anything behind."""
    before = everything(Path.cwd())
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    assert stopped.value.code == 2, captured
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    assert everything(Path.cwd()) == before
    return captured.err


def run_set(*settings: str) -> list[str]:
    return ["run", "lsf_digits", "--store", STORE, *(word for setting in settings for word in ("--set", setting))]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        # no such field or section
        (["training.epoch=3"], ["training.epoch = 3", "training has no such field", "did you mean epochs?"]),
        (["trainin.epochs=3"], ["trainin", "did you mean training?"]),
        (["colour=3"], ["colour = 3", "experiment has no such field; it has name", "keep_ratio"]),
        (["selection.strength=3"], ["selection.strength = 3", "lsf has no such field", "timestep"]),
        (["scenario.real_fraction=0.2"], ["scenario.real_fraction = 0.2", "accumulate_subsample has no such field"]),
        # a value of another type
        (["training.epochs=three"], ["training.epochs = 'three'", "integer"]),
        (["training.epochs=2.5"], ["training.epochs = 2.5", "integer"]),
        (["data.source=3"], ["data.source = 3", "string"]),
        (["data=digits"], ["data = 'digits'", "mapping"]),
        (["model.block_out_channels=32"], ["model.block_out_channels = 32", "tuple"]),
        (["scenario=replace"], ["scenario = 'replace'", "scenario.kind", "accumulate"]),
        (["selection=null"], ["selection = None", "selection.strategy", "random"]),
        # a value out of range
        (["training.epochs=0"], ["training.epochs = 0", "greater than or equal to 1"]),
        (["training.learning_rate=-1"], ["training.learning_rate = -1", "greater than 0"]),
        (["seed=-1"], ["seed = -1", "greater than or equal to 0"]),
        (["keep_ratio=0"], ["keep_ratio = 0", "greater than 0"]),
        (["keep_ratio=1.5"], ["keep_ratio = 1.5", "less than or equal to 1"]),
        (["keep_ratio=.nan"], ["keep_ratio = nan"]),
        (["keep_ratio=1e-300"], ["keep_ratio = 1e-300", "images a generation", "less than"]),
        (["budget=0"], ["budget = 0"]),
        (["generations=-1"], ["generations = -1"]),
        (["metrics.num_samples=5"], ["metrics.num_samples = 5", "greater than or equal to 10"]),
        (["model.block_out_channels=[8, 6]"], ["model.block_out_channels.1 = 6", "multiple of 4"]),
        (["model.block_out_channels=[]"], ["model.block_out_channels = []", "at least 1"]),
        (["selection.timestep=1000"], ["selection.timestep = 1000", "less than or equal to 999"]),
        (["selection.timestep=[]"], ["selection.timestep = []", "at least 1"]),
        (["scenario.kind=fresh_mix", "scenario.real_fraction=2"], ["scenario.real_fraction = 2", "less than 1"]),
        # no such choice
        (["selection.strategy=lfs"], ["selection.strategy = 'lfs'", "did you mean lsf?", "class_balanced_random"]),
        (["scenario.kind=acumulate"], ["scenario.kind = 'acumulate'", "did you mean accumulate", "constant_mix"]),
        (["generation.sampler=euler"], ["generation.sampler = 'euler'", "'ddim' or 'ddpm'"]),
        (["metrics.feature_network=resnet"], ["metrics.feature_network = 'resnet'", "classifier"]),
        (["data.labels=noisy"], ["data.labels = 'noisy'", "'oracle', 'ssc_omp', 'kmeans', 'predicted' or 'shuffled'"]),
        # values that do not fit together
        (["selection.timestep=500", "model.num_train_timesteps=100"], ["selection.timestep = 500", "= 100"]),
        (["selection.timestep=[5, 200]", "model.num_train_timesteps=100"], ["selection.timestep = 200", "= 100"]),
        (["generation.num_inference_steps=2000"], ["num_inference_steps = 2000", "num_train_timesteps = 1000"]),
        (["data.image_size=9"], ["data.image_size = 9", "multiple of 2", "block_out_channels"]),
        (["metrics.num_samples=50", "metrics.k=50"], ["metrics.num_samples = 50", "metrics.k = 50"]),
        (["model.conditional=false"], ["selection.strategy = lsf", "model.conditional=true"]),
        (
            ["model.conditional=false", "selection.strategy=random", "selection.per_class=true"],
            ["selection.per_class = true", "model.conditional=true"],
        ),
        (
            ["model.conditional=false", "selection.strategy=none", "metrics.feature_network=latent"],
            ["metrics.feature_network = latent", "model.conditional=true"],
        ),
        (
            ["model.conditional=false", "selection.strategy=none", "generation.guidance_scale=2"],
            ["generation.guidance_scale = 2.0", "model.conditional=true"],
        ),
        (
            ["generation.guidance_scale=2", "training.condition_dropout=0"],
            ["generation.guidance_scale = 2.0", "training.condition_dropout > 0"],
        ),
        # dynamic classes
        (["data.appear={7: 0}"], ["data.appear.7 = 0", "greater than or equal to 1"]),
        (["data.vanish={-7: 1}"], ["data.vanish.-7 = -7", "greater than or equal to 0"]),
        (["data.appear={seven: 1}"], ["data.appear.seven = 'seven'", "integer"]),
        (["data.appear={7: 2}", "data.vanish={7: 2}"], ["data.vanish.7 = 2", "appears in generation 2", "3 or more"]),
        (["data.appear={7: 2}", "scenario.kind=fresh_mix"], ["data.appear = {7: 2}", "constant_mix"]),
        (
            ["data.vanish={7: 2}", "model.conditional=false", "selection={strategy: random}"],
            ["data.vanish", "model.conditional=true"],
        ),
        # a probe that is refitted
        (["selection.refresh=0"], ["selection.refresh = 0", "greater than or equal to 1"]),
        (["selection.strategy=random", "selection.refresh=2"], ["selection.refresh = 2", "random has no such field"]),
        # how a setting is written
        (["epochs"], ["--set epochs", "section.field=value"]),
        (["=3"], ["--set =3", "section.field=value"]),
        (["training..epochs=3"], ["--set training..epochs=3", "section.field=value"]),
        (["training.epochs=[1"], ["--set training.epochs=[1", "not valid YAML"]),
        (["seed.low=3"], ["--set seed.low", "seed has no fields"]),
        (["name=../up"], ["name = '../up'", "letters, digits"]),
        (["name=two words"], ["name = 'two words'", "letters, digits"]),
        # data that are not there
        (["data.source=digit"], ["data.source = 'digit'", "did you mean digits?", "folder:DIR"]),
        (["data.source=folder:nowhere"], ["data.source = 'folder:nowhere'", "no such file or folder"]),
        (["data.source=folder:images"], ["data.source = 'folder:images'", "no files", "*.png"]),
        (["data.source=idx:images"], ["data.source = 'idx:images'", "-ubyte"]),
        (["data.source=parquet:nothing.parquet"], ["data.source = 'parquet:nothing.parquet'", "no such file"]),
        (["data.source='npz:'"], ["data.source = 'npz:'", "write it as npz:FILE"]),
        (["data.source=digits:8"], ["data.source = 'digits:8'", "write it as digits"]),
        (["data.source=parquet:gopher://host/x"], ["data.source = 'parquet:gopher://host/x'"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_an_experiment_that_cannot_run(capsys, settings, told):
    line = refused(capsys, *run_set(*settings))
    for words in told:
        assert words in line
    # The dry run refuses the same.
    assert refused(capsys, "plan", *run_set(*settings)[1:]) == line


def test_fashion_mnist_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("autophagy.data.sources.base.FASHION_MNIST", "/nowhere/fashion-mnist")
    line = refused(capsys, *run_set("data.source=fashion_mnist"))
    assert "apt-get install dataset-fashion-mnist" in line


@pytest.mark.parametrize(("network", "package"), [("inception", "torch_fidelity"), ("dinov2", "transformers")])
def test_a_feature_network_that_is_not_installed(capsys, monkeypatch, network, package):
    # Its files may be there on some machines: look where there are none.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(capsys, *run_set(f"metrics.feature_network={network}"))
    assert f"metrics.feature_network = {network}" in line
    assert package in line
    assert f"autophagy[{network}]" in line


@pytest.mark.parametrize("name", ["../up", "..", "/absolute", "a/b", ".hidden", "", "two words", "a\n", "a" * 101])
def test_a_name_that_is_no_file_name(capsys, name):
    line = refused(capsys, *run_set(), "--name", name)
    assert "name = " in line
    assert repr(name) in line


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("missing.yaml", "cannot be read"),
        ("folder.yaml", "cannot be read"),
        ("list.yaml", "must be a mapping"),
        ("empty.yaml", "must be a mapping"),
        ("broken.yaml", "not valid YAML"),
        ("binary.yaml", "not valid YAML"),
        ("tagged.yaml", "not valid YAML"),
        ("unknown_section.yaml", "models = {}: experiment has no such field (did you mean model?)"),
        ("no_source.yaml", "data: is missing"),
        ("flat_data.yaml", "data = 'digits'"),
        ("flat_selection.yaml", "selection = 'lsf'"),
        ("no_strategy.yaml", "selection.strategy = None"),
        ("date.yaml", "seed = datetime.date(2020, 1, 1)"),
        ("itself.yaml", "has a value that holds itself"),
        ("two words.yaml", "name = 'two words'"),
    ],
)
def test_a_file_that_is_no_experiment(capsys, file, told):
    assert told in refused(capsys, "run", file, "--store", STORE)
    assert told in refused(capsys, "run", file, "--store", STORE, "--set", "budget=100")


@pytest.mark.parametrize(
    "store",
    ["foreign", "foreign/below", "/proc/nowhere", "", "gopher://host/x", "gs://bucket/x", "s3://", "file://"],
)
def test_a_store_that_cannot_be(capsys, store):
    line = refused(capsys, "run", "lsf_digits", "--store", store)
    assert "store" in line
    assert store in line
    assert "writable folder" in line


@pytest.mark.parametrize("uri", ["nowhere", "ftp://host/x", "file:///tmp/mlruns"])
def test_a_tracking_uri_that_mlflow_does_not_know(capsys, monkeypatch, uri):
    line = refused(capsys, *run_set(), "--tracking-uri", uri)
    assert repr(uri) in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert refused(capsys, *run_set()) == line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no command"),
        (["store"], "no command"),
        (["rum", "lsf_digits"], "rum"),
        (["run"], "recipe"),
        (["plan"], "recipe"),
        (["run", "lsf_digits", "again"], "again"),
        (["run", "lsf_digits", "--stor", "x"], "--stor"),
        (["run", "lsf_digits", "--set"], "--set"),
        (["run", "lfs_digits"], "did you mean lsf_digits?"),
        (["run", ""], "recipes: lsf_digits"),
        (["plan", "lsf_digits", "--store", "foreign"], "foreign"),
        (["store", "ls", "--store", "nowhere"], "nowhere"),
        (["store", "verify", "--store", "nowhere"], "nowhere"),
        (["store", "gc", "--store", "foreign"], "foreign"),
        (["store", "gc", "--remove"], "--remove"),
    ],
    ids=" ".join,
)
def test_a_command_that_is_none(capsys, arguments, told):
    assert told in refused(capsys, *arguments)


def test_a_run_that_belongs_to_another_experiment(capsys):
    folder = Path(STORE, "runs", "lsf_digits")
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text("data: {source: digits}\n")
    os.mkdir(Path(STORE, "tmp"))
    line = refused(capsys, *run_set(), "--tracking-uri", "none")
    assert "name = lsf_digits" in line
    assert "another experiment" in line
    assert "--name" in line
    (folder / "experiment.yaml").write_bytes(bytes(range(256)))
    assert "experiment.yaml: is not valid YAML" in refused(capsys, *run_set(), "--tracking-uri", "none")
