"""What several tests need: random-weight CLIP checkpoints, images, servers and commands to run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

START, END = "<|startoftext|>", "<|endoftext|>"


def write_random_clip(directory: Path, **vision_and_text: Any) -> Path:
    """Write a CLIP with random weights: right shapes and cost, no meaning.

    Args:
        directory: Where to.
        **vision_and_text: `text_config` and `vision_config` of `CLIPConfig`; ViT-B/32 without.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = CLIPConfig(**vision_and_text)
    model = CLIPModel(config)
    model.save_pretrained(directory)
    size = config.vision_config.image_size
    tokenizer = CLIPTokenizer(
        vocab=_byte_vocabulary(config.text_config),
        merges=[],
        model_max_length=config.text_config.max_position_embeddings,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(directory)
    return directory


def write_tiny_clip(directory: Path) -> Path:
    """Write a random CLIP that embeds in a millisecond."""
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 24, "vocab_size": 600, "bos_token_id": 598, "eos_token_id": 599,
        "projection_dim": 32,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8, "projection_dim": 32,
    }  # fmt: skip
    return write_random_clip(directory, text_config=text, vision_config=vision, projection_dim=32)


def _byte_vocabulary(text_config: Any) -> dict[str, int]:
    """Every byte a token, alone and at the end of a word: no merges to learn."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    vocabulary |= {letter + "</w>": len(letters) + place for place, letter in enumerate(letters)}
    return vocabulary | {START: text_config.bos_token_id, END: text_config.eos_token_id}


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
