"""Build the small CLIP model and start it from the data instead of from noise.

In: a tokenizer and some augmented images. Out: a transformers `CLIPModel`, and its two towers as functions
that can leave patches out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, unfold
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

#: Side of the images and of a patch, in pixels.
IMAGE_PIXELS, PATCH_PIXELS = 72, 12
#: Width of both towers and of the shared space.
WIDTH = 192
#: Root mean square of the sine-cosine position table.
POSITION_RMS = 0.5


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Make an untrained model that fits a tokenizer."""
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 3, "projection_dim": WIDTH}
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "num_hidden_layers": 3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**shared, "num_hidden_layers": 6, "image_size": IMAGE_PIXELS, "patch_size": PATCH_PIXELS}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def sine_cosine_table(side: int, width: int) -> Tensor:
    """Make a 2-D sine-cosine position table.

    Args:
        side: Positions along each axis.
        width: Length of a position's vector, a multiple of 4.

    Returns:
        float32 of shape (side * side, width) with a root mean square of `POSITION_RMS`.
    """
    frequencies = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies[None] * math.pi / 2
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    rows = axis[:, None].expand(side, side, -1)
    columns = axis[None].expand(side, side, -1)
    table = torch.cat([rows, columns], 2).reshape(side * side, width)
    return table * (POSITION_RMS / table.square().mean().sqrt())


@torch.no_grad()
def start_from_data(model: CLIPModel, images: Tensor, damping: float = 0.02) -> None:
    """Set the patch embedding to a damped PCA whitening of real patches, and the positions to sines.

    The patches' mean is folded into the position table, so the model stays a plain `CLIPModel`.

    Args:
        model: The model to start.
        images: Normalised images of shape (n, 3, side, side).
        damping: Share of the largest variance that is added to every variance.
    """
    embeddings = model.vision_model.embeddings
    patches = unfold(images, PATCH_PIXELS, stride=PATCH_PIXELS).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values[-WIDTH:], vectors[:, -WIDTH:]
    whitening = vectors / (values + damping * values[-1]).sqrt()
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    weight = (whitening @ rotation).T
    weight /= ((patches - mean) @ weight.T).std()
    embeddings.patch_embedding.weight.copy_(weight.view_as(embeddings.patch_embedding.weight))
    table = sine_cosine_table(IMAGE_PIXELS // PATCH_PIXELS, WIDTH)
    embeddings.position_embedding.weight[1:] = table - weight @ mean
    embeddings.position_embedding.weight[0] = 0
    embeddings.class_embedding.normal_(0, POSITION_RMS)


def embed_images(model: CLIPModel, images: Tensor, kept: Tensor | None = None) -> Tensor:
    """Embed images, optionally looking at some patches only.

    Args:
        model: The model.
        images: Normalised images of shape (n, 3, side, side).
        kept: int64, shape (n, k): the patches that are looked at; None for all.

    Returns:
        Unit vectors of shape (n, width).
    """
    vision = model.vision_model
    hidden = vision.embeddings(images)
    if kept is not None:
        patches = hidden[:, 1:].gather(1, kept[:, :, None].expand(-1, -1, hidden.shape[2]))
        hidden = torch.cat([hidden[:, :1], patches], 1)
    hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(hidden)).last_hidden_state
    return normalize(model.visual_projection(vision.post_layernorm(hidden[:, 0])).float(), dim=1)


def embed_texts(model: CLIPModel, token_ids: Tensor) -> Tensor:
    """Embed token ids of shape (n, tokens), padded with the end token, as unit vectors of shape (n, width)."""
    return normalize(model.text_projection(model.text_model(input_ids=token_ids).pooler_output).float(), dim=1)
