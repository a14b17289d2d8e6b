"""Columns of features in files of every kind that is read, and what is wrong with others."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autophagy.common.errors import UserError
from autophagy.standalone.columns import read_columns

N, DIM = 60, 4
X = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
LABELS = np.arange(N) % 3
CONFIDENCE = np.random.default_rng(1).random(N).astype(np.float32)
IS_REAL = np.arange(N) < 12


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A working directory with files of features."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.savez("x.npz", features=X, label=LABELS, confidence=CONFIDENCE, is_real=IS_REAL, unknown=np.zeros(2))
    return tmp_path


class TestColumns:
    def same(self, path: str) -> None:
        columns = read_columns(path, ("features", "label", "confidence", "is_real"))
        np.testing.assert_array_equal(columns["features"], X)
        np.testing.assert_array_equal(columns["label"], LABELS)
        np.testing.assert_array_equal(columns["confidence"], CONFIDENCE)
        np.testing.assert_array_equal(columns["is_real"], IS_REAL)

    @pytest.mark.parametrize("form", ["list", "large_list", "fixed_size_list", "tensor"])
    def test_parquet_vectors(self, form):
        vectors = {
            "list": lambda: pa.array(list(X)),
            "large_list": lambda: pa.array(list(X), pa.large_list(pa.float32())),
            "fixed_size_list": lambda: pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), DIM),
            "tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(X),
        }[form]()
        columns = {
            "features": vectors,
            "label": LABELS,
            "confidence": CONFIDENCE,
            "is_real": IS_REAL,
            "name": ["x"] * N,
        }
        pq.write_table(pa.table(columns), "x.parquet", row_group_size=7)
        self.same("x.parquet")

    def test_a_folder_of_parquet_files_is_read_in_order_of_names(self, workplace):
        (workplace / "parts").mkdir()
        for part in (2, 0, 1):
            rows = slice(20 * part, 20 * part + 20)
            columns = {"features": list(X[rows]), "label": LABELS[rows], "confidence": CONFIDENCE[rows]}
            pq.write_table(pa.table(columns | {"is_real": IS_REAL[rows]}), f"parts/part-{part}.parquet")
        self.same("parts")

    def test_npz_and_npy(self):
        self.same("x.npz")
        np.testing.assert_array_equal(read_columns("x.npy", ["features"])["features"], X)

    def test_empty_floats_are_nan(self):
        pq.write_table(pa.table({"confidence": [0.5, None]}), "x.parquet")
        np.testing.assert_array_equal(read_columns("x.parquet", ["confidence"])["confidence"], [0.5, np.nan])

    @pytest.mark.parametrize(
        ("name", "columns", "told"),
        [
            ("x.npy", np.zeros((5, 8, 8, 3)), "flatten images"),
            ("x.npy", np.zeros((5, 8, 8)), "flatten images"),
            ("x.npy", np.zeros(5), "[5], not [n, D]"),
            ("x.npy", np.zeros((5, 0)), "[5, 0], not [n, D]"),
            ("x.npy", np.zeros((0, 5)), "no rows"),
            ("x.npy", np.array([["a"]]), "give numbers"),
            ("x.npy", np.zeros((2, 2), complex), "give numbers"),
            ("x.npy", np.array([[None]]), "cannot be read"),
            ("x.npz", {"arr_0": X}, "has only arr_0; name a column features"),
            ("x.npz", {"features": X, "label": LABELS[:-1]}, "different lengths"),
            ("x.npz", {"features": X, "label": LABELS / 2}, "label has type float64; give whole numbers"),
            ("x.npz", {"features": X, "label": LABELS[:, None]}, "label has shape [60, 1]"),
            ("x.npz", {"features": X, "is_real": LABELS}, "true or false"),
            ("x.parquet", {"features": [[1.0, 2.0], [3.0]]}, "2 different lengths"),
            ("x.parquet", {"features": [[1.0], None]}, "1 empty rows"),
            ("x.parquet", {"features": [[1.0], [2.0]], "label": [1, None]}, "label has 1 empty rows"),
            ("x.parquet", {"features": ["a", "b"]}, "give numbers"),
            ("x.parquet", {"other": [1]}, "has only other"),
        ],
    )
    def test_what_is_no_column(self, name, columns, told):
        if name.endswith(".parquet"):
            pq.write_table(pa.table(columns), name)
        elif isinstance(columns, dict):
            np.savez(name, **columns)
        else:
            np.save(name, columns)
        with pytest.raises(UserError) as error:
            read_columns(name, ("features", "label", "is_real"))
        assert str(error.value).startswith(f"{name}: ")
        assert told in str(error.value)

    @pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet"])
    @pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
    def test_a_damaged_file(self, workplace, name, content):
        (workplace / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            read_columns(name, ["features"])
