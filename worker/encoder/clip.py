"""CLIP's two towers: RGB squares or sentences in, unit embeddings out.

In: any transformers CLIP checkpoint. Out: `(n, dim)` float32, unit rows, on the CPU. The text tower runs only when
sentences are new; the image tower never sees a sentence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from worker.encoder.checkpoint import Checkpoint, load_checkpoint
from worker.encoder.precision import apply_precision, choose_precision, tower_dtype
from worker.errors import ModelUnavailable, UsageError

Matrix = npt.NDArray[np.float32]
View = npt.NDArray[np.uint8]

_LEVELS = 256


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the checkpoint's own processor does to an image."""

    #: Pixels of the shorter side after resizing.
    shortest_edge: int
    #: Pixels of the side of the centre crop: what the tower sees.
    crop: int
    #: PIL's number of the resampling filter.
    resample: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How much of a sentence the text tower reads."""

    #: Tokens of the whole sentence, with start and end.
    tokens: int
    #: Characters, from the start, that are read.
    characters: int


class ClipEncoder:
    """A CLIP checkpoint on one device, in one precision.

    Args:
        checkpoint: What to run.
        device: Where.
        precision: fp32, bf16, fp16 or int8.
        batch_size: Views or sentences that a tower takes at once.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: str, batch_size: int) -> None:
        self.id = checkpoint.id
        self.revision = checkpoint.revision
        self.precision = precision
        self.device = device
        self._batch_size = batch_size
        self._tokenizer = checkpoint.processor.tokenizer
        config: Any = checkpoint.model.config
        #: Tokens of a sentence that the text tower reads, with start and end.
        self.max_tokens = int(config.text_config.max_position_embeddings)
        self.preprocessing, self._pixel_values = _read_processor(checkpoint.processor.image_processor)
        # Read in fp32, whatever the precision: 100 would become 99 in bf16, and scores with it.
        self.logit_scale = float(checkpoint.model.logit_scale.detach().float().exp())
        self.dim = int(config.projection_dim)
        self._model: Any = apply_precision(checkpoint.model, precision, device)
        self._dtype = tower_dtype(precision)
        self._levels = torch.from_numpy(self._pixel_values).to(device, self._dtype)

    @property
    def name(self) -> str:
        """`id@revision`: what a policy's calibration is bound to."""
        return f"{self.id}@{self.revision}"

    @property
    def fingerprint(self) -> str:
        """Name all that an image's embedding depends on beside its view, in hexadecimal digits."""
        parts = (self.name, self.precision, self.preprocessing)
        return hashlib.sha256(repr(parts).encode() + self._pixel_values.tobytes()).hexdigest()

    def warm_up(self) -> None:
        """Run both towers once, so that the first upload does not pay for it."""
        side = self.preprocessing.crop
        self.embed_images([np.zeros((side, side, 3), np.uint8)] * min(self._batch_size, 2))
        self.embed_texts(["a photo"])

    def embed_images(self, views: Sequence[View]) -> Matrix:
        """Embed views.

        Args:
            views: n RGB squares `(crop, crop, 3)` uint8, as the checkpoint's processor would crop them.

        Returns:
            `(n, dim)` float32, unit rows, in order.
        """
        parts = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(views), self._batch_size):
            pixels = self.pixel_values(views[start : start + self._batch_size])
            with torch.inference_mode():
                features = self._model.get_image_features(pixel_values=pixels).pooler_output
                parts.append(_unit(features))
        return np.concatenate(parts)

    def embed_texts(self, sentences: Sequence[str]) -> Matrix:
        """Embed sentences; what is longer than the model's context is cut, as CLIPProcessor does.

        Args:
            sentences: n sentences.

        Returns:
            `(n, dim)` float32, unit rows, in order.
        """
        parts = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(sentences), self._batch_size):
            batch = list(sentences[start : start + self._batch_size])
            tokens = self._tokenizer(
                batch, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
            with torch.inference_mode():
                features = self._model.get_text_features(
                    input_ids=tokens["input_ids"].to(self.device),
                    attention_mask=tokens["attention_mask"].to(self.device),
                )
                parts.append(_unit(features.pooler_output))
        return np.concatenate(parts)

    def read(self, sentences: Sequence[str]) -> list[Reading]:
        """Say how much of each sentence `embed_texts` reads before it cuts it; same length, same order."""
        read = []
        for sentence in sentences:
            # The tokenizer warns of what is too long, which is what it is asked here.
            tokens = self._tokenizer(sentence, return_offsets_mapping=True, verbose=False)
            ends = [end for _, end in tokens["offset_mapping"]]
            # The last token that is kept is the mark of the end.
            is_cut = len(ends) > self.max_tokens
            read.append(Reading(len(ends), ends[self.max_tokens - 2] if is_cut else len(sentence)))
        return read

    def classify(self, view: View, sentences: Sequence[str]) -> list[float]:
        """Return each sentence's share of the softmax over all of them, for one image.

        Args:
            view: One RGB square.
            sentences: What to choose from.

        Returns:
            Shares that sum to 1: transformers' `logits_per_image.softmax(dim=1)`.

        Source:
            Radford et al. 2021, figure 3; transformers documentation, `CLIPModel`.
        """
        logits = self.logit_scale * (self.embed_images([view]) @ self.embed_texts(sentences).T)
        return [float(share) for share in torch.from_numpy(logits[0]).softmax(dim=0)]

    def pixel_values(self, views: Sequence[View]) -> torch.Tensor:
        """Rescale and normalise views, equal to CLIPImageProcessor's to the last bit in fp32.

        Args:
            views: n RGB squares, uint8.

        Returns:
            `(n, 3, crop, crop)` on the device, in the towers' dtype.
        """
        if self.device.type == "cpu":
            return look_up(views, self._pixel_values).to(self._dtype)
        return look_up_on_device(views, self._levels)


def look_up(views: Sequence[View], table: Matrix) -> torch.Tensor:
    """Look pixels up with numpy, which needs no 64-bit copies of them: 20 times as fast as torch on a CPU.

    Args:
        views: n RGB squares, uint8.
        table: `(3, 256)` float32: what each level of each channel becomes.

    Returns:
        `(n, 3, side, side)` float32.
    """
    pixels = np.empty((len(views), 3, *views[0].shape[:2]), np.float32)
    for view, planes in zip(views, pixels, strict=True):
        for channel in range(3):
            # Levels cannot lie outside the table; with "clip" numpy writes where it is told to, without a copy.
            np.take(table[channel], view[..., channel], out=planes[channel], mode="clip")
    return torch.from_numpy(pixels)


def look_up_on_device(views: Sequence[View], table: torch.Tensor) -> torch.Tensor:
    """Send bytes to where the table lies, and look them up there; as `look_up`, in the table's dtype."""
    squares = torch.from_numpy(np.stack(views)).to(table.device).permute(0, 3, 1, 2).long()
    return torch.stack([table[channel][squares[:, channel]] for channel in range(3)], dim=1)


def use_threads(threads: int) -> None:
    """Set how many threads a product of torch is split over, in this process."""
    torch.set_num_threads(threads)


def load_encoder(
    model: str, revision: str | None, device: str, precision: str, batch_size: int, *, download: bool = True
) -> ClipEncoder:
    """Load a checkpoint onto a device.

    Args:
        model: `builtin`, a local directory, or a hub id.
        revision: Of a hub model.
        device: auto, cpu, mps, cuda or cuda:N.
        precision: auto, fp32, bf16, fp16 or int8.
        batch_size: Views or sentences that a tower takes at once.
        download: Whether the hub is asked for a checkpoint that is not on this machine.

    Raises:
        ModelUnavailable: The checkpoint cannot be loaded.
        UsageError: The device or precision is not to be had.
    """
    chosen = _choose_device(device)
    exact = choose_precision(precision, chosen)
    return ClipEncoder(load_checkpoint(model, revision, download=download), chosen, exact, batch_size)


def _choose_device(asked: str) -> torch.device:
    if asked == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"SLUICE_DEVICE={asked} is not a device; use auto, cpu, mps, cuda or cuda:N") from error
    if not usable.get(device.type) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise UsageError(f"SLUICE_DEVICE={asked} is not on this machine; use auto or cpu")
    return device


def _read_processor(processor: Any) -> tuple[Preprocessing, Matrix]:
    """Read the checkpoint's preprocessing.

    Returns:
        The geometry, and the table `(3, 256)` of what each 8-bit level of each channel becomes; its entries go
        through float64 as transformers' own numpy path does.
    """
    size, crop = dict(processor.size), dict(processor.crop_size or {})
    side = crop.get("height", 0)
    fits = processor.do_resize and processor.do_center_crop and processor.do_rescale and processor.do_normalize
    if not fits or not size.get("shortest_edge") or side != crop.get("width") or side > size["shortest_edge"]:
        raise ModelUnavailable(
            "this checkpoint's image processor does not resize the shortest edge, crop a square, rescale and "
            "normalise as CLIP does; use a CLIP checkpoint"
        )
    levels = (np.arange(_LEVELS).astype(np.float64) * processor.rescale_factor).astype(np.float32)
    mean, std = np.array(processor.image_mean, np.float32), np.array(processor.image_std, np.float32)
    table = (levels[None, :] - mean[:, None]) / std[:, None]
    return Preprocessing(int(size["shortest_edge"]), int(side), int(processor.resample)), table.astype(np.float32)


def _unit(features: torch.Tensor) -> Matrix:
    floats = features.float()
    unit: Matrix = (floats / floats.norm(dim=-1, keepdim=True)).cpu().numpy()
    return unit
