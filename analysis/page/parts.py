"""What a report shows of the stages of its loops: sample sheets, quick checks, cost, and how to make it again."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from autophagy.common.samples import REAL
from autophagy.runs.folder import EXPERIMENT, SWEEP, RunFolder, read_records
from autophagy.runs.stored import StoredLoop
from autophagy.store import StageStore
from autophagy.tracking.lineage import code_tags
from autophagy.tracking.tags import COMMIT, DIRTY
from page.answer import readable
from page.check_figures import confidence_curves, latent_map, ole_curves
from page.computed_by import Versions, described
from page.quick_checks import (
    confidence_distribution,
    latents_in_plane,
    nearest_training_images,
    ole_by_timestep,
)

MOST_SHEETS = 11  # arms with sample sheets
MOST_PIXELS = 3_000_000  # of all sheets: about as many bytes at worst
ROWS = 5  # of a sheet, fewer where the pixels do not suffice
T = TypeVar("T")
THUMBNAIL = 64  # larger images are shown at this height


def png_uri(image: np.ndarray) -> str:
    """uint8 [H, W, 2 or 4], with alpha, as a data URI."""
    buffer = BytesIO()
    Image.fromarray(image, "LA" if image.shape[2] == 2 else "RGBA").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Images uint8 [n, H, W, C] side by side, a transparent pixel between them: one image uint8 [h, w, C + 1]."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, channels + 1), np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[y : y + height, x : x + width, :channels] = image
        canvas[y : y + height, x : x + width, channels] = 255
    return canvas


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images of at most THUMBNAIL pixels a side."""
    if images.shape[1] <= THUMBNAIL:
        return images
    small = [Image.fromarray(i.squeeze()).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for i in images]
    return np.stack([np.asarray(image).reshape(THUMBNAIL, THUMBNAIL, images.shape[3]) for image in small])


def by_class(images: np.ndarray, label: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """`rows` images of each of the classes 0 .. columns - 1, so that a column of a sheet is a class."""
    chosen = [np.flatnonzero(label == c)[:rows] for c in range(columns)]
    if min(map(len, chosen)) < rows:
        return images[: columns * rows]
    return images[np.stack(chosen, axis=1).ravel()]


def sample_sheets(loops: Mapping[str, StoredLoop], baselines: Sequence[str]) -> dict[str, Any] | None:
    """Samples of every generation by arm, beside real images; None if the stages that hold them are gone.

    Args:
        loops: Arm -> one of its loops, the best first.
        baselines: Arms that are shown first.
    """
    others = [arm for arm in loops if arm not in baselines]
    room = MOST_SHEETS - len(baselines[:2])
    worst = room // 3 if len(others) > room else 0
    arms = [*baselines[:2], *others[: room - worst], *others[len(others) - worst :]]
    first = loops[arms[0]]
    try:
        info = first.needed("real").info
        classes = info["num_classes"]
        columns = classes if 2 <= classes <= 12 else 10
        pixels = min(THUMBNAIL, first.images(REAL, 1)[0].shape[1]) ** 2 * info["channels"]
        num_images = sum(len(loops[arm].generations) for arm in arms)
        rows = int(np.clip(MOST_PIXELS / (num_images * columns * pixels), 1, ROWS))
        sheets = [{"arm": arm, "images": _sheets_of(arm, loops[arm], columns, rows)} for arm in arms]
        images, label, _ = first.images(REAL, 40 * columns * rows)
        real = png_uri(sheet(thumbnails(by_class(images, label, columns, rows)), columns))
    except FileNotFoundError:
        return None
    caption = "The first images of every generation, none picked; drag the slider or use the arrow keys."
    if columns == classes:
        caption += " A column is a class."
    if len(arms) < len(loops):
        caption += f" {len(arms)} of {len(loops)} arms: the baseline, the best and the {worst} worst."
    return {
        "real": {"uri": real, "alt": f"{columns * rows} real images"},
        "arms": sheets,
        "last": max(len(loops[arm].generations) for arm in arms) - 1,
        "caption": caption,
    }


def _sheets_of(arm: str, loop: StoredLoop, columns: int, rows: int) -> list[dict[str, str]]:
    found = []
    for k in loop.generations:
        images, label, _ = loop.images(k, 4 * columns * rows)
        canvas = sheet(thumbnails(by_class(images, label, columns, rows)), columns)
        found.append({"uri": png_uri(canvas), "alt": f"{columns * rows} samples of {arm}, generation {k}"})
    return found


def quick_checks(loops: Mapping[str, StoredLoop], num_samples: int, timesteps: Sequence[int]) -> dict[str, Any] | None:
    """The quick checks of some loops; what a store does not hold is left out, None if that is everything."""
    maps = _of_each(loops, lambda i, arm, loop: latent_map(f"latents-{i}", arm, *latents_in_plane(loop)))
    confidences = _of_each(
        loops,
        lambda i, arm, loop: confidence_curves(f"confidence-{i}", arm, confidence_distribution(loop, num_samples)),
    )
    values = _of_each(loops, lambda i, arm, loop: (arm, ole_by_timestep(loop, timesteps)))
    known = np.concatenate([frame["ole"] for _, frame in values]) if values else np.zeros(1)
    limits = float(known.min()), float(known.max())
    oles = [ole_curves(f"ole-{i}", arm, frame, limits) for i, (arm, frame) in enumerate(values)]
    pairs = _of_each(loops, lambda _, arm, loop: neighbour_pairs(arm, loop, loop.generations[-1]))
    groups = [
        {"title": "How sure the probe is: share of the images that are at most so sure", "figures": confidences},
        {"title": "OLE: how much the subspaces of the classes overlap", "figures": oles},
    ]
    if not (maps or pairs or confidences or oles):
        return None
    runs = ", ".join(loop.name for loop in loops.values())
    which = "One loop each of the baseline, the best and the worst arm" if len(loops) > 1 else "One loop"
    return {
        "caption": f"{which}: {runs}.",
        "maps": maps,
        "last": max(len(loop.generations) for loop in loops.values()) - 1,
        "groups": [group for group in groups if group["figures"]],
        "pairs": pairs,
    }


def _of_each(loops: Mapping[str, StoredLoop], make: Callable[[int, str, StoredLoop], T]) -> list[T]:
    """What can be made of each loop; those without a probe, or whose stages are gone, are left out."""
    found = []
    for i, (arm, loop) in enumerate(loops.items()):
        try:
            found.append(make(i, arm, loop))
        except FileNotFoundError:
            continue
    return found


def neighbour_pairs(arm: str, loop: StoredLoop, generation: int) -> dict[str, Any]:
    """Generated images beside their nearest training images, as the page shows them."""
    found = nearest_training_images(loop, generation)
    images = thumbnails(np.concatenate([found.generated, found.nearest]))
    origins = ["real" if origin == REAL else f"gen. {origin}" for origin in found.origin]
    labels = [{"origin": o, "distance": readable(d)} for o, d in zip(origins, found.distance, strict=True)]
    return {
        "title": f"{arm}, generation {generation}",
        "uri": png_uri(sheet(images, len(found.generated))),
        "alt": f"{len(labels)} generated images of {arm}, each above its nearest training image",
        "labels": labels,
        "caption": (
            "From the nearest to the farthest, with the origin of the training image and the distance of features. "
            f"Copies (d1/d2 < 1/3): {found.copies:.1%}."
        ),
    }


def cost(store: StageStore, runs: Sequence[str]) -> dict[str, Any]:
    """Seconds by kind of stage, every stage counted once, and what loops that share nothing would have taken."""
    paid: dict[tuple[str, str], float] = {}
    alone = 0.0
    for run in runs:
        for record in read_records(store, run):
            for name, key in record.stages.items():
                paid[name, key] = record.seconds[name]
                alone += record.seconds[name]
    kinds = pd.Series(paid).groupby(level=0).agg(["sum", "size"]).sort_values("sum", ascending=False)
    total = float(kinds["sum"].sum())
    sentence = f"{duration(total)} of stages for {_count(len(runs), 'loop')}."
    if alone > 1.01 * total:
        sentence += f" Without sharing stages they would have taken {duration(alone)}."
    bars = [
        {"name": str(kind).replace("_", " "), "percent": round(100 * row["sum"] / kinds["sum"].max(), 1)}
        | {"told": f"{duration(row['sum'])}, {_count(int(row['size']), 'stage')}"}
        for kind, row in kinds.iterrows()
    ]
    return {"sentence": sentence, "bars": bars, "seconds": total}


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return "under 1 s"
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def reproduce(
    store: StageStore, sweeps: Sequence[str], frame: pd.DataFrame, uri: str, versions: Versions
) -> dict[str, Any]:
    """Commands, resolved configuration, versions, and the keys of the stages behind the numbers."""
    files = [_file(store, sweep, SWEEP) for sweep in sweeps]
    commands = [f"autophagy sweep {sweep}.yaml --store {uri}" for sweep in sweeps]
    alone = frame[frame["sweep"] == ""]
    files += [_file(store, run, EXPERIMENT) for run in alone.groupby("arm", sort=False)["run"].first()]
    commands += [f"autophagy run {run}.yaml --store {uri}" for run in alone["run"].unique()]
    last = frame.loc[frame.groupby("run", sort=False)["generation"].idxmax()]
    evaluations = [
        {"run": run, "generation": generation, "key": read_records(store, run)[-1].stages["evaluate"]}
        for run, generation in zip(last["run"].tolist(), last["generation"].tolist(), strict=True)
    ]
    evaluated = store.open("evaluate", evaluations[0]["key"])
    facts = dict(described(versions))
    here = code_tags()
    if COMMIT in here:
        changed = ", with uncommitted changes" if here[DIRTY] == "true" else ""
        facts["this report at commit"] = here[COMMIT][:10] + changed
    if evaluated:
        facts["computed"] = evaluated.manifest["created"][:10]
    return {
        "commands": commands if len(commands) <= 8 else [*commands[:8], f"# and {len(commands) - 8} more"],
        "files": files,
        "versions": list(facts.items()),
        "evaluated": evaluations,
        "store": uri,
    }


def _file(store: StageStore, name: str, file: str) -> dict[str, str]:
    text = (RunFolder(store, name).read(file) or b"").decode(errors="replace")
    return {"name": f"{name}.yaml", "text": text}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def setting(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """What all loops have in common, as names and values; a field that differs is said to."""
    first = frame.iloc[0]
    counts = (
        ("data", ["data.source", "data.image_size"], lambda v: f"{v[0]}, {v[1]}x{v[1]}"),
        ("scenario", ["scenario.kind"], lambda v: str(v[0]).replace("_", " ")),
        ("generations", ["generations"], lambda v: f"0 to {v[0]}"),
        ("trained on", ["budget"], lambda v: f"{v[0]:,} images a generation"),
        ("keep ratio", ["keep_ratio"], lambda v: f"{v[0]:g}"),
        (
            "measured on",
            ["metrics.num_samples", "metrics.feature_network"],
            lambda v: f"{v[0]:,} images, {v[1]} features",
        ),
    )
    found = []
    for name, fields, told in counts:
        same = all(frame[field].nunique(dropna=False) == 1 for field in fields)
        found.append((name, told([first[field] for field in fields]) if same else "differs between arms"))
    loops, seeds = frame["run"].nunique(), frame["seed"].nunique()
    found.append(("compared", f"{_count(loops, 'loop')}, {_count(seeds, 'seed')}"))
    return found
