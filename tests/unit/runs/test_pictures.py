"""The pictures show what the records say: panels, lines, bands, floors, pixels."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from autophagy.common.records import GenerationRecord
from autophagy.runs.pictures import MAIN_METRICS, _curves_figure, band, collapse_curves, sample_grid


def _run(**metrics: list[float]) -> list[GenerationRecord]:
    generations = range(len(next(iter(metrics.values()))))
    return [GenerationRecord(k, {key: row[k] for key, row in metrics.items()}, {}, {}) for k in generations]


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def _lines(axes) -> dict:
    return {line.get_label(): line for line in axes.lines}


def test_a_panel_a_metric_and_a_line_a_loop():
    curves = {f"loop {i}": [_run(fid=[1.0 * i, 2.0, 3.0], recall=[0.9, 0.8, 0.7])] for i in range(10)}
    figure = _curves_figure(curves, MAIN_METRICS, {})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["FID", "recall"]
    assert [axes.get_title(loc="right") for axes in figure.axes] == [
        "↓ lower is better",
        "↑ higher is better",
    ]
    for axes in figure.axes:
        assert list(_lines(axes)) == list(curves)
        looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == 10
    np.testing.assert_array_equal(_lines(figure.axes[0])["loop 7"].get_xydata(), [[0, 7], [1, 2], [2, 3]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)


def test_a_band_is_the_range_of_few_seeds_and_the_t_interval_of_many():
    assert band([1.0, 5.0, 3.0]) == (3.0, 1.0, 5.0)
    # t(0.975, 4) = 2.7764451; the standard deviation of 1 ... 5 is sqrt(2.5)
    half = 2.7764451051977987 * math.sqrt(2.5 / 5)
    assert band([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert np.isnan(band([math.nan])).all()


def test_seeds_become_their_mean_and_a_band_of_their_range():
    seeds = [_run(fid=[1.0, 2.0, math.nan]), _run(fid=[3.0, 8.0, 6.0]), _run(fid=[5.0])]
    (axes,) = _curves_figure({"lsf": seeds}, ["fid"], {}).axes
    np.testing.assert_allclose(_lines(axes)["lsf"].get_ydata(), [3.0, 5.0, 6.0])
    (area,) = axes.collections
    corners = area.get_paths()[0].vertices
    assert {(x, y) for x, y in corners} >= {(0, 1), (0, 5), (1, 2), (1, 8), (2, 6)}


def test_the_mean_ends_where_a_seed_was_stopped_and_the_others_go_on_as_thin_lines():
    short, long = _run(fid=[1.0, 8.0]), _run(fid=[3.0, 4.0, 5.0, 6.0])
    figure = _curves_figure({"lsf": [short, long]}, ["fid"], {"lsf": [short]})
    (axes,) = figure.axes
    np.testing.assert_array_equal(_lines(axes)["lsf"].get_xydata(), [[0, 2], [1, 6]])
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(cross.get_xydata(), [[1, 8]])
    tails = [line.get_xydata().tolist() for line in axes.lines if line.get_linewidth() < 1]
    assert tails == [[[1, 8]], [[1, 4], [2, 5], [3, 6]]]
    assert "stopped early" in figure.get_supxlabel()


def test_the_figure_says_what_its_bands_are():
    few, many = [_run(fid=[1.0, 2.0])] * 2, [_run(fid=[float(i), 2.0]) for i in range(5)]
    told = [
        _curves_figure(curves, ["fid"], {}).get_supxlabel()
        for curves in ({"a": few}, {"b": many}, {"a": few, "b": many})
    ]
    assert "smallest to largest" in told[0]
    assert "95%" not in told[0]
    assert told[1].endswith("95% interval of the mean")
    assert told[2].endswith("smallest to largest, or 95% interval of the mean (5 seeds or more)")


def test_what_real_images_reach_is_one_dashed_line():
    run = _run(fid=[4.0, 5.0], real_vs_real_fid=[2.0, math.nan], confidence=[0.5, 0.6], confidence_real=[0.9, 0.9])
    fid, confidence = _curves_figure({"a": [run], "b": [run]}, ["fid", "confidence"], {}).axes
    for axes, floor in ((fid, 2.0), (confidence, 0.9)):
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [floor]
        assert dashed[0].get_label() == "real images"


def test_generations_are_whole_numbers():
    for generations in (1, 2, 4, 40):
        figure = _curves_figure({"loop": [_run(fid=[1.0] * generations)]}, ["fid"], {})
        assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.0], [1.0], [1.0, math.nan, 3.0], [math.nan], []],
    ids=["two", "one", "gap", "undefined", "none"],
)
def test_curves_are_a_picture_whatever_was_measured(values):
    pixels = _pixels(collapse_curves({"loop": [_run(fid=values)]}))
    assert min(pixels.shape[:2]) > 400
    assert np.unique(pixels).size > 10


def test_nothing_measured_is_a_missing_panel():
    figure = _curves_figure({"loop": [_run(fid=[math.nan, math.nan], recall=[0.5, 0.4])]}, MAIN_METRICS, {})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["recall"]


def test_sample_grid_shows_each_pixel_as_a_block():
    rng = np.random.default_rng(0)
    real, synthetic = rng.integers(0, 256, (2, 20, 8, 8, 1), dtype=np.uint8)
    pixels = _pixels(sample_grid([("real", real), ("generation 0", synthetic[:3])], columns=4))
    step = 8 * 6 + 2
    left = pixels.shape[1] - 4 * step
    for row, images in enumerate((real, synthetic[:3])):
        for column, image in enumerate(images[:4]):
            y, x = 2 + row * step, left + column * step
            block = pixels[y : y + 48, x : x + 48]
            np.testing.assert_array_equal(block, image.repeat(6, axis=0).repeat(6, axis=1).repeat(3, axis=2))
    assert (pixels[step + 2 :, left + 3 * step :] == 255).all()  # the second row has three images
    assert (pixels[:step, :left] < 128).any()
    assert (pixels[step:, :left] < 128).any()


def test_sample_grid_keeps_colours_and_large_images():
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[0, :, :, 0], images[1, :, :, 2] = 200, 100
    pixels = _pixels(sample_grid([("generation 1", images)]))
    assert pixels.shape[0] == 64 + 4
    assert (pixels[32, -100] == [200, 0, 0]).all()
    assert (pixels[32, -10] == [0, 0, 100]).all()
