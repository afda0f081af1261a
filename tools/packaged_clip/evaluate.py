"""Measure a checkpoint: `python -m tools.packaged_clip.evaluate --help`.

In: an export directory, the stores of `data.py` and `evaluation.yaml`. Out: tables, or JSON with `--json`.
Reads the held-out styles; nothing that it finds is fed back into training or policies.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from tools.packaged_clip.batches import read_store
from tools.packaged_clip.scoring import Checkpoint
from tools.packaged_clip.sources import styles

#: Share of negatives that may be flagged when recall is measured.
FALSE_ALARM_SHARE = 0.05
#: Frames that a label is averaged over.
LABEL_TEMPLATES = ("{}", "a photo of a {}")
#: Weights of the contrast that are measured: uncalibrated, and none.
CONTRAST_WEIGHTS = (1.0, 0.0)


@dataclass(frozen=True)
class Detection:
    """How well one category, or the mean of all, is found in one style."""

    #: How many drawings show the category.
    positives: float
    #: Area under the ROC curve.
    auc: float
    #: Share of positives above the threshold that flags 5 % of the negatives.
    recall: float


def detection(margins: np.ndarray, positive: np.ndarray) -> Detection:
    """Measure one category.

    Args:
        margins: Shape (n,).
        positive: bool, shape (n,).
    """
    threshold = np.quantile(margins[~positive], 1 - FALSE_ALARM_SHARE)
    recall = float((margins[positive] > threshold).mean())
    return Detection(float(positive.sum()), float(roc_auc_score(positive, margins)), recall)


def moderation(
    checkpoint: Checkpoint, keys: list[str], images: np.ndarray, wording: str, contrast_weight: float
) -> dict[str, Detection]:
    """Measure all categories of `evaluation.yaml` in one style, and their mean under the name `macro`.

    Args:
        checkpoint: The checkpoint.
        keys: Concept keys of the drawings.
        images: Unit vectors of the drawings.
        wording: `prompts` or `rephrased`.
        contrast_weight: Weight of the contrast sentences.
    """
    evaluation = yaml.safe_load(Path(__file__).with_name("evaluation.yaml").read_text(encoding="utf-8"))
    contrast = checkpoint.texts(evaluation["contrast"])
    found = {}
    for name, category in evaluation["categories"].items():
        positive = np.isin(keys, [str(c) for c in category["positives"]])
        counted = positive | ~np.isin(keys, [str(c) for c in category["unclear"]])
        if positive.any():
            prompts = checkpoint.texts(category[wording])
            margins = checkpoint.margins(images, prompts, contrast, contrast_weight)
            found[name] = detection(margins[counted], positive[counted])
    every = np.array([[d.positives, d.auc, d.recall] for d in found.values()])
    return {**found, "macro": Detection(every[:, 0].sum(), *every[:, 1:].mean(0).tolist())}


def label_accuracy(
    checkpoint: Checkpoint, keys: list[str], images: np.ndarray, labels: dict[str, str], texts: np.ndarray
) -> dict[str, float]:
    """Measure how often the right label is first, or among the first five, of all emoji labels."""
    order = {key: i for i, key in enumerate(labels)}
    rows = [i for i, key in enumerate(keys) if key in order]
    right = np.array([order[keys[i]] for i in rows])
    similarity = images[rows] @ texts.T
    rank = (similarity > similarity[np.arange(len(rows)), right][:, None]).sum(1)
    return {"labels": len(labels), "top1": float((rank == 0).mean()), "top5": float((rank < 5).mean())}


def evaluate(directory: Path, data: Path) -> dict[str, Any]:
    """Measure every emoji style.

    Returns:
        By style: its role, label accuracy, and detections by wording and contrast weight.
    """
    checkpoint = Checkpoint(directory)
    concepts = json.loads((data / "concepts.json").read_text(encoding="utf-8"))
    labels = {key: entry["label"].replace(":", "").lower() for key, entry in concepts.items()}
    label_texts = checkpoint.texts(list(labels.values()), LABEL_TEMPLATES)
    found: dict[str, Any] = {}
    for style in styles():
        if style.name == "game-icons":
            continue
        keys, store = read_store(data, style.name)
        images = checkpoint.images(store)
        found[style.name] = {
            "role": style.role,
            "label": label_accuracy(checkpoint, keys, images, labels, label_texts),
            "moderation": {
                f"{wording}, w={weight:g}": {
                    name: asdict(d) for name, d in moderation(checkpoint, keys, images, wording, weight).items()
                }
                for wording in ("prompts", "rephrased")
                for weight in CONTRAST_WEIGHTS
            },
        }
    return found


def print_tables(found: dict[str, Any], console: Console) -> None:
    """Print one line for each style, and one for each category of the styles that were not trained on."""
    settings = list(next(iter(found.values()))["moderation"])
    table = Table("style", "role", "label top-1/5 %", *settings, title="macro AUC / recall % at 5 % false alarms")
    for name, style in found.items():
        macro = [style["moderation"][s]["macro"] for s in settings]
        label = f"{100 * style['label']['top1']:.1f} / {100 * style['label']['top5']:.1f}"
        table.add_row(name, style["role"], label, *(f"{m['auc']:.3f} / {100 * m['recall']:.0f}" for m in macro))
    console.print(table)
    for name, style in found.items():
        if style["role"] == "train":
            continue
        table = Table("category", "positives", *settings, title=f"{name} ({style['role']})")
        for category in style["moderation"][settings[0]]:
            cells = [style["moderation"][s][category] for s in settings]
            row = (f"{c['auc']:.3f} / {100 * c['recall']:.0f}" for c in cells)
            table.add_row(category, f"{cells[0]['positives']:.0f}", *row)
        console.print(table)


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("worker/encoder/builtin"))
    parser.add_argument("--data", type=Path, required=True, help="the directory that data.py wrote")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = evaluate(arguments.checkpoint, arguments.data)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print_tables(found, Console(width=140))


if __name__ == "__main__":
    main()
