"""YAML made to use up memory or stack, texts that steer a terminal, names that look like markup."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from autophagy.cli import main
from autophagy.cli.console import hint
from autophagy.cli.progress import ConsoleProgress, ConsoleSweep
from autophagy.common.errors import UserError, shown, visible
from autophagy.common.yaml_text import MAX_BYTES, read_yaml
from autophagy.config import override, parse
from autophagy.config.expand import loops
from autophagy.config.settings import load_yaml
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.runs.folder import RunFolder
from autophagy.runs.outcomes import Outcome, write_outcomes
from autophagy.store import StageStore

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 30))


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, no Ray to be had, no tracking from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    return tmp_path


# YAML

TEXTS = {
    "laughs": (LAUGHS, "has aliases that stand for more than"),
    "long laughs": (f"- &a {'x' * 10_000}\n" + "- *a\n" * 200, "has aliases that stand for more than"),
    "merges": (MERGES, "has aliases that stand for more than"),
    "chain": ("- &a0 []\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 99)), "is nested deeper than 50"),
    "itself": ("&a [*a]", "has a value that holds itself"),
    "flow lists": ("[" * 50_000, "is nested deeper than 50 levels"),
    "flow mappings": ("{a: " * 50_000, "is nested deeper than 50 levels"),
    "block lists": ("- " * 50_000, "is nested deeper than 50 levels"),
    "keys": ("? " * 50_000, "is nested deeper than 50 levels"),
    "long": ("#" * (MAX_BYTES + 1), "is longer than 262144 bytes"),
    "hexadecimal": ("0x" + "f" * 5000, "a whole number of more than 64 bits"),
    "decimal": ("9" * 5000, "is not valid YAML"),
    "no date": ("2020-13-45", "is not valid YAML (month must be in 1..12)"),
    "no integer": ("!!int ''", "is not valid YAML"),
    "no timestamp": ("!!timestamp x", "is not valid YAML"),
    "object": ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
    "two": ("--- 1\n--- 2\n", "is not valid YAML"),
    "nul": ("a\0b", "is not valid YAML"),
}


@pytest.mark.parametrize(("text", "why"), TEXTS.values(), ids=TEXTS)
def test_yaml_that_is_not_read_says_where_and_why(text: str, why: str):
    Path("a.yaml").write_text(text)
    for read, where in (
        (lambda: read_yaml(text, "a.yaml"), "a.yaml"),
        (lambda: load_yaml(Path("a.yaml")), "a.yaml"),
        (lambda: override({}, [f"seed={text}"]), "--set seed="),
    ):
        with pytest.raises(UserError) as caught:
            read()
        line = str(caught.value)
        assert line.startswith(where)
        assert why in line
        assert len(line) <= 2000


def test_bytes_are_utf_8():
    assert read_yaml("a: ü".encode(), "a.yaml") == {"a": "ü"}
    with pytest.raises(UserError, match=r"a\.yaml: is not valid YAML"):
        read_yaml(b"\xff", "a.yaml")


def test_what_people_write_is_read():
    deep = "[" * 50 + "]" * 50
    assert read_yaml(deep, "x") == yaml.safe_load(deep)
    common = "common: &a {x: 1}\nmore: &b {<<: *a, y: 2}\nleft: {<<: *b, z: 3}\nright: *b\n"
    assert read_yaml(common, "x") == yaml.safe_load(common)
    assert read_yaml(str(2**63), "x") == 2**63
    assert read_yaml("", "x") is None


def test_a_name_of_many_parts_is_refused():
    with pytest.raises(UserError, match="has 3000 parts; no field is that deep"):
        override({}, ["a." * 2999 + "a=1"])


# Errors


def test_an_error_is_bounded_and_keeps_its_remedy():
    line = str(UserError(f"data.source = {'x' * 10**6}: is of no use; give another"))
    assert len(line) <= 2000
    assert line.startswith("data.source = xxx")
    assert line.endswith("give another")
    assert str(UserError("short\nand plain\tü")) == "short\nand plain\tü"


@pytest.mark.parametrize(
    "sign", [*map(chr, range(9)), "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\ud800"]
)
def test_what_steers_a_terminal_is_shown_instead(sign: str):
    for line in (visible(f"a{sign}b"), str(UserError(f"a{sign}b"))):
        assert sign not in line
        assert line.startswith("a\\")
        assert line.encode().endswith(b"b")


def test_a_value_is_quoted_in_200_characters_without_its_secrets():
    assert shown("a") == "'a'"
    assert len(shown("a" * 10**6)) <= 200
    assert "SECRET" not in shown("s3://" + "K" * 100 + ":" + "SECRET" * 100 + "@bucket")


@pytest.mark.parametrize(
    "setting",
    [
        "seed={}",
        "{}=1",
        "data={}",
        "data.{}=1",
        "selection={}",
        "selection.strategy={}",
        "selection.{}=1",
        "data.labels={}",
    ],
)
def test_absurd_values_and_names_make_short_errors(tiny_values: dict, setting: str):
    with pytest.raises(UserError) as caught:
        parse(override(tiny_values, [setting.format("x" * 100_000)]))
    assert len(str(caught.value)) <= 2000


# The command line

NAMES = ["[/x]", "[red]gone[/red]", "\\[a]", "[link=x]y", ":warning:", "[bold"]
STEERING = "\x1b]0;title\x07"


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command and all that it prints."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    return stopped.value.code, captured.out + captured.err


def write_sweep(name: str, values: dict) -> Path:
    """A sweep with this name as the name of an axis, of a label and of a control."""
    values = {key: value for key, value in values.items() if key != "name"}
    settings = {"selection.strategy": "random"}
    axes = {name: {name: settings, "other": settings | {"selection.per_class": True}}}
    sweep = {"base": values, "axes": axes, "controls": {f"{name} too": settings}}
    Path("marked.yaml").write_text(yaml.safe_dump(sweep))
    return Path("marked.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_markup_are_printed_as_they_are(capsys, tiny_values, name: str):
    code, text = command(capsys, "plan", str(write_sweep(name, tiny_values)), "--store", f"store{name}")
    assert code == 0
    assert f"2 {name} x 1 seed, and {name} too" in text


@pytest.mark.parametrize("name", NAMES)
def test_so_are_those_of_a_sweep_that_has_ended(capsys, monkeypatch, tiny_values, name: str):
    path = write_sweep(name, tiny_values)

    def run(sweep: Sweep, store: StageStore, *_: object) -> None:
        made = loops(sweep)
        RunFolder(store, sweep.name).write("table.md", "".join(f"| {loop.arm} |\n" for loop in made).encode())
        write_outcomes(store, sweep.name, {loop.run: Outcome("failed", 0, f"because of {name}") for loop in made})

    monkeypatch.setattr("autophagy.sweeps.sweep.run_sweep", run)
    monkeypatch.setattr("autophagy.sweeps.sweep.checked_plans", lambda *_: None)
    code, text = command(capsys, "sweep", str(path), "--store", f"store{name}", "--tracking-uri", "none")
    assert code == 1
    assert f"| {name} |" in text
    assert f"because of {name}" in text
    assert f"/store{name}/runs/marked/table.md" in text


@pytest.mark.parametrize("name", [*NAMES, STEERING])
def test_so_are_paths(capsys, name: str):
    np.save("features.npy", np.random.default_rng(0).normal(size=(20, 3)))
    Path(f"{name}.csv").parent.mkdir(exist_ok=True)
    code, text = command(
        capsys, "select", "features.npy", "--keep", "5", "--out", f"{name}.csv", "--strategy", "random"
    )
    assert (code, Path(f"{name}.csv").exists()) == (0, True)
    assert f"{visible(name)}.csv" in text
    code, refused = command(capsys, "select", f"{name}.npy", "--keep", "5", "--out", "out.csv")
    assert code == 2
    assert f"{visible(name)}.npy: no such file" in refused
    code, unknown = command(capsys, name)
    assert code == 2
    assert "\x1b" not in text + refused + unknown


@pytest.mark.parametrize("name", [*NAMES, STEERING])
def test_so_is_what_a_running_loop_says(capsys, tiny_values, name: str):
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    ConsoleProgress(console).waits(f"waiting for {name}")
    (loop, *_) = loops(parse_sweep(yaml.safe_load(write_sweep("a", tiny_values).read_text())))
    shows = ConsoleSweep(console)
    shows.retried(loop, f"because of {name}")
    shows.ended(loop, Outcome("failed", 0, f"in the end of {name}"))
    hint("look at", name)
    for begins in ("waiting for", "because of", "in the end of"):
        assert f"{begins} {visible(name)}\n" in printed.getvalue()
    assert f"look at  {visible(name)}\n" in capsys.readouterr().out


def test_an_error_shows_no_escape_sequence(capsys, tiny_values):
    Path("a.yaml").write_text(yaml.safe_dump(tiny_values | {"name": STEERING}))
    code, text = command(capsys, "run", "a.yaml")
    assert code == 2
    assert "\x1b" not in text
    assert "title" in text
