"""Choose the calibration and the thresholds of the demo policy: `python -m tools.packaged_clip.demo_policy --help`.

In: the checkpoint, the stores of `data.py` and the policy's sentences. Out: the same policy file with new numbers.
Looks at trained styles only; the held-out ones stay unseen until the evaluation.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch.nn.functional import interpolate, pad

from tools.packaged_clip.batches import read_store
from tools.packaged_clip.scoring import Checkpoint
from tools.packaged_clip.sources import TRAIN, styles
from worker.encoder.checkpoint import BUILTIN, checkpoint_revision

#: Weights of the contrast that are tried; not 0, so that a look-alike that a learner adds always has an effect.
CONTRAST_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
#: Share of a stream that is taken to show a category: a score is then the chance that this drawing does.
ASSUMED_SHARE = 0.05
#: Shares of the neutral drawings that each category may send to review, and may block.
REVIEWED_SHARE, BLOCKED_SHARE = 0.005, 0.001
#: Thresholds stay in this range, and are at least so far apart.
LOWEST_REVIEW, HIGHEST_BLOCK, SMALLEST_GAP = 0.3, 0.95, 0.2
#: Side that drawings are also shown at, in the middle of a white square, in pixels.
SMALL_PIXELS = 60

#: Emoji that show a category, and emoji that count neither way.
SHOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weapons": (("REVOLVER", "1F5E1", "2694", "1F3F9"), ("1FA93", "1F4A3", "1F93A", "1F6E1", "1F531")),
    "explosives": (("1F4A3", "1F9E8", "1F4A5"), ("1F387", "1F386", "1F30B", "1F92F", "1F525", "1F5EF")),
    "alcohol": (
        ("1F37A", "1F37B", "1F377", "1F378", "1F379", "1F37E", "1F942", "1F943", "1F376"),
        ("1FAD7", "1F964"),
    ),
    "tobacco": (("1F6AC",), ()),
    "gambling": (("1F3B0", "1F3B2", "1F0CF", "2660", "2663", "2666", "1F3B4"), ("2665", "1F004", "1F3B1")),
    "drugs": (("1F48A", "1F489"), ("1F344", "1FA78", "2695")),
    "death": (("1F480", "2620", "26B0", "1FAA6"), ("26B1", "1F3F4-200D-2620", "1F9DF", "1F9B4", "1F571")),
    "obscene_gestures": (("1F595",), ()),
}


@dataclass(frozen=True)
class Fit:
    """The numbers of one category, and what they do on the trained styles."""

    bias: float
    temperature: float
    contrast_weight: float
    review: float
    block: float
    #: Shares of the category's drawings at or above each threshold.
    reviewed: float
    blocked: float


def embed_trained_styles(checkpoint: Checkpoint, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embed every emoji of the trained styles, full size and smaller.

    Returns:
        Concept keys of shape (n,) and unit vectors of shape (n, width).
    """
    keys: list[str] = []
    images = []
    for style in styles(TRAIN):
        if style.name == "game-icons":
            continue
        names, store = read_store(data, style.name)
        keys += names * 2
        images += [checkpoint.images(store), checkpoint.images(shrink(store))]
    return np.array(keys), np.concatenate(images)


def shrink(store: np.ndarray) -> np.ndarray:
    """Scale drawings, uint8 (n, side, side, 4), to `SMALL_PIXELS` and pad them to their old side."""
    rgba = torch.from_numpy(np.array(store)).permute(0, 3, 1, 2).float()
    margin = (rgba.shape[-1] - SMALL_PIXELS) // 2
    small = pad(interpolate(rgba, SMALL_PIXELS, mode="area"), [margin] * 4)
    return small.round().byte().permute(0, 2, 3, 1).numpy()


def fit_category(margins: dict[float, np.ndarray], positive: np.ndarray) -> Fit:
    """Choose a category's numbers: the weight by average precision, the sigmoid by logistic regression.

    Args:
        margins: Margins, shape (n,), by contrast weight.
        positive: bool, shape (n,): whether a drawing shows the category.
    """
    weight = max(margins, key=lambda w: average_precision_score(positive, margins[w]))
    chosen = margins[weight]
    odds = ASSUMED_SHARE / (1 - ASSUMED_SHARE)
    weights = {True: odds * (~positive).sum() / positive.sum(), False: 1.0}
    model = LogisticRegression(class_weight=weights).fit(chosen[:, None], positive)
    temperature = round(1 / model.coef_.item(), 3)
    bias = round(-model.intercept_.item() * temperature, 3)
    scores = 1 / (1 + np.exp(-(chosen - bias) / temperature))
    review, block = thresholds(scores[~positive])
    reviewed, blocked = ((scores[positive] >= t).mean().item() for t in (review, block))
    return Fit(bias, temperature, weight, review, block, reviewed, blocked)


def thresholds(neutral_scores: np.ndarray) -> tuple[float, float]:
    """Choose the review and block thresholds by the false alarms that are allowed."""
    review, block = np.quantile(neutral_scores, [1 - REVIEWED_SHARE, 1 - BLOCKED_SHARE])
    review = min(max(review, LOWEST_REVIEW), HIGHEST_BLOCK - SMALLEST_GAP)
    block = min(max(block, review + SMALLEST_GAP), HIGHEST_BLOCK)
    return round(float(review), 2), round(float(block), 2)


def fit_policy(policy: dict[str, Any], checkpoint: Checkpoint, data: Path) -> dict[str, Fit]:
    """Choose the numbers of every category of a policy."""
    templates = policy["templates"]
    keys, images = embed_trained_styles(checkpoint, data)
    contrast = checkpoint.texts(policy["contrast"], templates)
    fits = {}
    for name, category in policy["categories"].items():
        shown, unclear = SHOWN[name]
        counted = ~np.isin(keys, unclear)
        prompts = checkpoint.texts(category["prompts"], templates)
        against = np.concatenate([contrast, checkpoint.texts(category["look_alikes"], templates)])
        margins = {w: checkpoint.margins(images[counted], prompts, against, w) for w in CONTRAST_WEIGHTS}
        fits[name] = fit_category(margins, np.isin(keys[counted], shown))
    return fits


def rewrite(text: str, fits: dict[str, Fit], model: str) -> str:
    """Put the numbers into the policy's text, comments and all."""
    for name, fit in fits.items():
        pattern = rf"(\n  {name}:\n(?:    .*\n)*?    thresholds: )\{{.*\}}"
        text, count = re.subn(pattern, rf"\g<1>{{review: {fit.review}, block: {fit.block}}}", text)
        if count != 1:
            raise ValueError(f"category {name} has no line `thresholds: {{...}}`")
    lines = [f'calibration:\n  "{model}":']
    for name, fit in fits.items():
        lines.append(
            f"    {name}: {{bias: {fit.bias}, temperature: {fit.temperature}, contrast_weight: {fit.contrast_weight}}}"
        )
    return re.sub(r"\ncalibration:.*\Z", "\n" + "\n".join(lines) + "\n", text, flags=re.DOTALL)


def main() -> None:
    """Read the arguments, choose the numbers and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("worker/encoder/builtin"))
    parser.add_argument("--policy", type=Path, default=Path("policies/demo/v1.yaml"))
    parser.add_argument("--data", type=Path, required=True, help="the directory that data.py wrote")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = arguments.policy.read_text(encoding="utf-8")
    fits = fit_policy(yaml.safe_load(text), Checkpoint(arguments.checkpoint), arguments.data)
    model = f"{BUILTIN}@{checkpoint_revision(arguments.checkpoint)}"
    arguments.policy.write_text(rewrite(text, fits, model), encoding="utf-8")
    table = Table(
        "category",
        "w",
        "bias",
        "temperature",
        "review",
        "block",
        "reviewed %",
        "blocked %",
        title=f"trained styles, {model}",
    )
    for name, fit in fits.items():
        numbers = (fit.contrast_weight, fit.bias, fit.temperature, fit.review, fit.block)
        table.add_row(name, *map(str, numbers), f"{100 * fit.reviewed:.0f}", f"{100 * fit.blocked:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
