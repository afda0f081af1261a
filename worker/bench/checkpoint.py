"""A CLIP with random weights: the shapes and the cost of a real one, where there is none to download.

In: a directory. Out: a checkpoint in it that every part of Sluice takes for one. Its scores mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging


def write_random_clip(directory: Path, **config: Any) -> Path:
    """Write a CLIP with random weights, always the same ones.

    Args:
        directory: Where to.
        **config: `text_config`, `vision_config` and `projection_dim` of `CLIPConfig`; ViT-B/32 without.

    Returns:
        The directory.
    """
    logging.disable_progress_bar()
    torch.manual_seed(0)
    shape = CLIPConfig(**config)
    model: Any = CLIPModel(shape)
    model.save_pretrained(directory)
    text: Any = shape.text_config
    vision: Any = shape.vision_config
    tokenizer = CLIPTokenizer(vocab=_bytes(text), merges=[], model_max_length=text.max_position_embeddings)
    side = vision.image_size
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(directory)
    return directory


def _bytes(text: Any) -> dict[str, int]:
    """Every byte a token, alone and at the end of a word: no merges to learn."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    vocabulary |= {letter + "</w>": len(letters) + place for place, letter in enumerate(letters)}
    return vocabulary | {"<|startoftext|>": text.bos_token_id, "<|endoftext|>": text.eos_token_id}
