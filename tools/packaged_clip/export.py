"""Write a model and its tokenizer as the directory that `CLIPModel` and `CLIPProcessor` load.

In: a trained model. Out: `config.json`, `model.safetensors` (float16), tokenizer and processor files.
Never leaves a half-written directory behind: files are moved in when all are complete.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from tools.packaged_clip.augment import MEAN, STD
from tools.packaged_clip.model import IMAGE_PIXELS


def build_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """Make the processor: bicubic resize of the shorter side, centre crop, CLIP's normalisation."""
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_PIXELS},
        crop_size={"height": IMAGE_PIXELS, "width": IMAGE_PIXELS},
        resample=3,
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def export(model: CLIPModel, tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Write the float16 model and its processor.

    Args:
        model: The trained model, float32; it is not changed.
        tokenizer: Its tokenizer.
        directory: Where the files go; other files there are kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        temporary = Path(name)
        copy.deepcopy(model).to(torch.float16).eval().save_pretrained(temporary)
        build_processor(tokenizer).save_pretrained(temporary)
        for path in sorted(temporary.iterdir()):
            path.chmod(0o644)
            path.replace(directory / path.name)
