"""Files made to run code, to lead elsewhere or to use up the memory: each is refused in one line, before it can."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from autophagy.common.errors import UserError
from autophagy.data.limits import MAX_LABEL, MAX_PIXELS
from autophagy.data.pixels import load_images
from autophagy.data.tables import tensor_column
from autophagy.standalone.columns import read_columns
from autophagy.store import StageStore

PICKLES = "ray.data.arrow_pickled_object"


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def named(name: str, kind: pa.DataType, extension: str = PICKLES) -> pa.Field:
    """A field as a file has it that was written where the extension type was registered."""
    return pa.field(name, kind, metadata={"ARROW:extension:name": extension, "ARROW:extension:metadata": ""})


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
PICTURE = png(PIXELS)
BINARY = pa.large_binary()


def table(field: pa.Field, values: list, **others: pa.Array) -> pa.Table:
    plain = pa.table({field.name: pa.array(values, field.type), **others})
    return plain.cast(pa.schema([field, *(plain.schema.field(name) for name in others)]))


def write_hostile(folder: Path) -> None:
    """The same payload in every place that some reader looks at."""
    payload = pickle.dumps(Payload(folder / "mark"))
    images = pa.array([PICTURE], pa.binary())
    by_label = table(named("label", BINARY), [payload], image=images)
    in_struct = table(pa.field("image", pa.struct([named("bytes", BINARY)])), [{"bytes": payload}])
    pq.write_table(by_label, folder / "label.parquet")
    pq.write_table(in_struct, folder / "struct.parquet")
    pq.write_table(table(named("features", BINARY), [payload]), folder / "features.parquet")
    listed = table(pa.field("features", pa.list_(named("item", BINARY))), [[payload]])
    pq.write_table(listed, folder / "list.parquet")
    for name in ("folder", "hub"):  # only the second file is hostile
        (folder / name).mkdir()
        pq.write_table(pa.table({"image": images, "label": pa.array([0])}), folder / name / "a.parquet")
        pq.write_table(by_label, folder / name / "b.parquet")
    (folder / "saved").mkdir()
    with pa.ipc.new_stream(folder / "saved" / "data.arrow", by_label.schema) as writer:
        writer.write_table(by_label)
    (folder / "saved" / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": "data.arrow"}], "_split": "train", "_fingerprint": "0"}
    formats = {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False}
    (folder / "saved" / "state.json").write_text(json.dumps(state | formats))
    store = StageStore(folder / "store")
    store.build("real", "k1", {}, lambda attempt: attempt.write_table("images.parquet", by_label))


def read_hostile(folder: Path) -> dict[str, str]:
    """What each reader ends with, by its name; "ran" in front where the payload ran."""
    readers: dict[str, Callable[[], object]] = {
        "label": lambda: load_images(f"parquet:{folder}/label.parquet", 8),
        "struct": lambda: load_images(f"parquet:{folder}/struct.parquet", 8),
        "folder": lambda: load_images(f"parquet:{folder}/folder", 8),
        "hub": lambda: load_images(f"hf:{folder}/hub", 8),
        "saved": lambda: load_images(f"hf:{folder}/saved", 8),
        "columns": lambda: read_columns(f"{folder}/features.parquet", ["features"]),
        "lists": lambda: read_columns(f"{folder}/list.parquet", ["features"]),
        "label column": lambda: read_columns(f"{folder}/label.parquet", ["label"]),
        "store": lambda: StageStore(folder / "store").open("real", "k1").read_table(),
    }
    told = {}
    for name, read in readers.items():
        try:
            read()
            told[name] = "read"
        except (UserError, RuntimeError) as error:
            told[name] = f"{type(error).__name__}: {error}"
        if (folder / "mark").exists():
            told[name] = f"ran; {told[name]}"
            (folder / "mark").unlink()
    return told


IN_A_PROCESS_WITH_RAY_DATA = """
import json, pathlib, sys
import pyarrow.parquet
import ray.data
from test_hostile_data import read_hostile
folder = pathlib.Path(sys.argv[1])
told = read_hostile(folder)
pyarrow.parquet.read_table(folder / "label.parquet")["label"].to_pylist()  # who does not look first
print(json.dumps([told, (folder / "mark").exists()]))
"""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `datasets` keeps what it makes of files, here and in child processes."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache")
def test_no_reader_runs_the_code_in_a_file_whatever_is_imported(tmp_path: Path):
    write_hostile(tmp_path)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    child = [sys.executable, "-c", IN_A_PROCESS_WITH_RAY_DATA, str(tmp_path)]
    done = subprocess.run(child, env=environment, capture_output=True, text=True, check=True, timeout=300)
    told, is_alive = json.loads(done.stdout.splitlines()[-1])
    assert is_alive, "the payload must be one that runs"
    assert len(told) == 9
    for name, line in told.items():
        assert not line.startswith("ran"), (name, line)
        assert line.startswith("RuntimeError: stage real k1: " if name == "store" else "UserError: "), (name, line)
        assert PICKLES in line, (name, line)
        assert "may run code" in line, (name, line)
        assert "\n" not in line
    assert "b.parquet" in told["folder"]
    (tmp_path / "mark").unlink()
    assert read_hostile(tmp_path) == told  # the same where `ray.data` need not be imported


def refused(source: str) -> str:
    with pytest.raises(UserError) as caught:
        load_images(source, 8)
    line = str(caught.value)
    assert line.startswith("data.source = ")
    assert "\n" not in line
    assert len(line) <= 2000
    return line


# What lies elsewhere


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for data beside another with a picture that is not to be read."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "x.png").write_bytes(PICTURE)
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    (tmp_path / "data" / "pictures" / "own.png").write_bytes(PICTURE)
    return tmp_path / "data"


def write_paths(place: Path, *paths: str) -> str:
    cells = [{"bytes": None, "path": path} for path in paths]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, kind)}), place / "a.parquet")
    return f"parquet:{place}/a.parquet"


def test_a_path_in_a_row_is_read_below_the_datas_folder(place: Path):
    source = write_paths(place, "pictures/own.png", str(place / "pictures" / "own.png"))
    for given in (source, f"parquet:{place}", f"parquet:file://{place}", f"parquet:file://{place}/a.parquet"):
        np.testing.assert_array_equal(load_images(given, 8).image[1, ..., 0], PIXELS)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("{}/private/x.png", "leads out of the data's folder"),
        ("../private/x.png", "leads out of the data's folder"),
        ("pictures/../../private/x.png", "leads out of the data's folder"),
        ("link/x.png", "leads out of the data's folder"),
        ("/dev/zero", "leads out of the data's folder"),
        ("a\0b", "leads out of the data's folder"),
        ("pictures", "of no file"),
        ("pipe", "of no file"),
        ("missing.png", "of no file"),
        ("a" * 5000, "of no file"),
    ],
    ids=lambda value: value[:30],
)
def test_a_path_in_a_row_that_leads_elsewhere_is_refused(place: Path, path: str, why: str):
    (place / "link").symlink_to(place.parent / "private")
    os.mkfifo(place / "pipe")
    line = refused(write_paths(place, "pictures/own.png", path.format(place.parent)))
    assert "in row 1 of column 'image'" in line
    assert why in line
    assert "write the images' bytes into the column" in line


@pytest.mark.usefixtures("cache")
def test_what_a_local_hub_folder_names_elsewhere_is_refused(place: Path):
    pictures = place / "pictures"
    assert len(load_images(f"hf:{pictures}", 8).image) == 1
    (pictures / "metadata.csv").write_text("file_name,label\n../../private/x.png,1\n")
    assert "cannot load split" in refused(f"hf:{pictures}")
    write_paths(place, str(pictures / "own.png"), str(place.parent / "private" / "x.png"))
    (place / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: '*.parquet'\n---\n")
    assert "row 1 of column 'image' is a path" in refused(f"hf:{place}")
    elsewhere = place.parent / "private" / "*"
    (place / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {elsewhere}\n---\n")
    assert "names a file elsewhere" in refused(f"hf:{place}")


@pytest.mark.usefixtures("cache")
def test_what_a_saved_data_set_names_elsewhere_is_refused(tmp_path: Path):
    write_hostile(tmp_path)
    plain = pa.table({"image": pa.array([PICTURE], pa.binary())})
    with pa.ipc.new_stream(tmp_path / "private.arrow", plain.schema) as writer:
        writer.write_table(plain)
    (tmp_path / "saved" / "data.arrow").unlink()
    state = (tmp_path / "saved" / "state.json").read_text()
    (tmp_path / "saved" / "state.json").write_text(state.replace("data.arrow", "../private.arrow"))
    assert "names a file elsewhere" in refused(f"hf:{tmp_path}/saved")


def test_links_out_of_a_folder_of_images_are_refused_and_pipes_left_alone(place: Path):
    os.mkfifo(place / "pictures" / "pipe.png")
    (place / "pictures" / "again.png").symlink_to(place / "pictures" / "own.png")
    assert len(load_images(f"folder:{place}", 8).image) == 2
    (place / "pictures" / "out.png").symlink_to(place.parent / "private" / "x.png")
    assert "pictures/out.png" in (line := refused(f"folder:{place}"))
    assert "a link that leads out of this folder" in line
    (place / "pictures" / "out.png").unlink()
    (place / "zoo").symlink_to(place.parent / "private")
    assert "zoo/x.png" in refused(f"folder:{place}")


@pytest.mark.parametrize("kind", ["folder", "npz", "parquet", "idx"])
def test_devices_and_pipes_are_not_opened(tmp_path: Path, kind: str):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in ("/dev/zero", tmp_path / "pipe.npz"):
        assert "neither a file nor a folder" in refused(f"{kind}:{path}")
    with pytest.raises(UserError, match="a device or the like"):
        read_columns(str(tmp_path / "pipe.npz"), ["features"])


# What is larger than it seems


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr("autophagy.data.pixels.MAX_PIXELS", 63)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("must not be decoded"))
    (tmp_path / "a.png").write_bytes(PICTURE)
    assert "a.png is 8 x 8 pixels, more than" in refused(f"folder:{tmp_path}")


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def write_npz(path: Path, data: bytes, **zipped: int) -> Path:
    with zipfile.ZipFile(path, "w", **zipped) as archive:
        archive.writestr("image.npy", data)
        archive.writestr("features.npy", data)
    return path


DEEP = b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"-" * 8999 + b"1"
MEMBERS = {
    "terabyte": (header((1 << 20, 1 << 10, 1 << 10)) + b"1", "is more than the file holds"),
    "negative": (header((-1, 8)) + b"1" * 64, "is more than the file holds"),
    "pickles": (header((1,), "|O") + pickle.dumps(np.array([None])), "objects are not read"),
    "long header": (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 20_000, "expected 2147483647 bytes"),
    "deep header": (DEEP, "the header is of no array"),
    "no array": (b"12345678", "magic string is not correct"),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("data", "why"), MEMBERS.values(), ids=MEMBERS)
def test_arrays_that_promise_more_than_there_is(tmp_path: Path, data: bytes, why: str, compression: int):
    place = write_npz(tmp_path / "a.npz", data, compression=compression)
    assert why in refused(f"npz:{place}")
    with pytest.raises(UserError, match=why):
        read_columns(str(place), ["features"])
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npy: cannot be read"):
        read_columns(str(tmp_path / "a.npy"), ["features"])


def test_a_member_that_lies_about_its_size(tmp_path: Path):
    place = write_npz(tmp_path / "a.npz", header((1 << 30,)) + b"1", compression=zipfile.ZIP_DEFLATED)
    data = place.read_bytes()
    size = (len(header((1 << 30,))) + 1).to_bytes(4, "little")
    place.write_bytes(data.replace(size, (0x7FFFFFFF).to_bytes(4, "little")))
    assert "is more than the file holds" in refused(f"npz:{place}")


@pytest.mark.parametrize(("change", "why"), [({"compression": zipfile.ZIP_BZIP2}, "in another way"), ({}, "encrypted")])
def test_zip_files_of_another_kind(tmp_path: Path, change: dict[str, int], why: str):
    place = write_npz(tmp_path / "a.npz", header((8, 8)) + bytes(64), **change)
    if not change:
        data = bytearray(place.read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.find(mark)
            data[at + offset] |= 1
        place.write_bytes(data)
    assert why in refused(f"npz:{place}")
    with pytest.raises(UserError, match=why):
        read_columns(str(place), ["features"])


def test_compressed_arrays_of_one_value_are_read(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", image=np.zeros((500, 32, 32), np.uint8), features=np.zeros((5000, 100)))
    assert load_images(f"npz:{tmp_path}/a.npz", 8).image.shape == (500, 8, 8, 1)
    assert read_columns(f"{tmp_path}/a.npz", ["features"])["features"].shape == (5000, 100)


@pytest.mark.parametrize(
    ("shape", "size", "why"),
    [
        ((1, 8, 8), 64 << 20, "has more bytes of data, not [1, 8, 8]"),
        ((1 << 31, 1 << 31, 1 << 31), 64, "has 64 bytes of data, not [2147483648"),
    ],
)
def test_idx_files_are_read_to_what_their_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], size: int, why: str
):
    lengths = []
    monkeypatch.setattr("autophagy.data.limits._CHUNK", 64)
    read = "autophagy.data.sources.files.read_at_most"
    from autophagy.data.limits import read_at_most

    monkeypatch.setattr(read, lambda stream, n: lengths.append(len(data := read_at_most(stream, n))) or data)
    data = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in shape) + bytes(size)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(data, 1))
    assert why in refused(f"idx:{tmp_path}")
    assert max(lengths) <= 65


def test_what_needs_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise MemoryError("cannot allocate")

    monkeypatch.setattr("autophagy.data.sources.files.read_at_most", fail)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"")
    assert "needs more memory than there is" in refused(f"idx:{tmp_path}")


# Metadata and labels


@pytest.mark.parametrize(
    "metadata",
    ["no JSON", "[" * 100_000, "[]", "1", '{"info": 1}', '{"info": {"features": [1]}}', "\xff"]
    + [json.dumps({"info": {"features": {"label": {"names": names}}}}) for names in (5, [1, 2], [["a"]], ["a" * 9999])],
    ids=lambda value: value[:40],
)
def test_metadata_that_are_no_class_names_are_ignored(tmp_path: Path, metadata: str):
    images = pa.table({"image": tensor_column(PIXELS[None, ..., None]), "label": pa.array([0])})
    pq.write_table(images.replace_schema_metadata({"huggingface": metadata.encode("latin1")}), tmp_path / "a.parquet")
    assert load_images(f"parquet:{tmp_path}/a.parquet", 8).classes == ("0",)


@pytest.mark.parametrize(
    ("label", "why"),
    [("a" * (MAX_LABEL + 1), "row 0 of column 'label' has 1001 characters"), (b"\xff", "bytes that are no ASCII")],
    ids=["long", "bytes"],
)
def test_labels_that_are_no_class_names(tmp_path: Path, label: object, why: str):
    images = pa.table({"image": tensor_column(PIXELS[None, ..., None]), "label": pa.array([label])})
    pq.write_table(images, tmp_path / "a.parquet")
    assert why in (line := refused(f"parquet:{tmp_path}/a.parquet"))
    assert len(line) < 600
