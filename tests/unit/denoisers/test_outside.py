"""Denoisers of installed packages: which configuration means one, and what is told of one that is of no use."""

from __future__ import annotations

import sys

import pytest
from mlp_denoiser import Mlp

from autophagy.common.errors import UserError
from autophagy.denoisers import OUTSIDE, make_model

ENTRIES = """
gone = nowhere:Net
other = theirs:Net
function = theirs:make
halfway = theirs:Halfway
nameless = theirs:Nameless
broken = theirs:missing
failing = theirs_failing:Net
"""
THEIRS = """
from mlp_denoiser import Mlp
from autophagy.denoisers import Model

class Net(Mlp):
    kind: str = "net"

class Nameless(Mlp):
    kind: str

class Halfway(Model):
    kind: str = "halfway"

def make():
    raise AssertionError("is not called")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with entry points that are of no use."""
    about = tmp_path / "their_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{OUTSIDE}]{ENTRIES}")
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "theirs_failing.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("theirs", None)


def test_a_kind_that_a_package_brings_is_one_of_its_class():
    model = make_model({"kind": "mlp", "width": 8})
    assert model == Mlp(width=8)
    assert make_model(model) is model


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gone", "`gone = nowhere:Net` of the package their-package cannot be loaded (ModuleNotFoundError: No module"),
        ("broken", "`broken = theirs:missing` of the package their-package cannot be loaded (AttributeError: "),
        ("failing", "their-package cannot be loaded (RuntimeError: two lines); mend the package, or install it again"),
        ("function", "`function = theirs:make` of the package their-package is no denoiser; name a class there that"),
        ("halfway", "is no denoiser; name a class there that derives from autophagy.denoisers.Model and has build, "),
        ("other", "`other = theirs:Net` of the package their-package is of a class whose kind is 'net'; give both the"),
        ("nameless", "is of a class whose kind has no default; give both the same name, the class by `kind: Literal["),
    ],
)
def test_an_entry_point_of_no_use_is_one_line(installed, kind, told):
    with pytest.raises(UserError) as error:
        make_model({"kind": kind})
    line = str(error.value)
    assert line.startswith(f"model.kind = {kind!r}: the entry point `{kind} = ")
    assert told in line
    assert "\n" not in line


def test_others_are_not_loaded_and_are_what_may_have_been_meant(installed):
    with pytest.raises(
        UserError, match=r"^model\.kind = 'othr': unknown \(did you mean other\?\); choose one of unet, "
    ):
        make_model({"kind": "othr"})
    with pytest.raises(UserError, match=r"^model\.kind = 'mpl': unknown \(did you mean mlp\?\)"):
        make_model({"kind": "mpl"})
    assert "theirs" not in sys.modules
    assert make_model({"kind": "mlp"}) == Mlp()
    assert make_model({}).kind == "unet"
