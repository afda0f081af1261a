"""Show each drawing in a new way: other lines and colours, another place, another background.

In: premultiplied RGBA batches. Out: normalised RGB batches as the model's processor makes them.
Never flips what reads in one direction only.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d

#: Normalisation of the published CLIP models, kept so that the processor's settings look familiar.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

#: Share of images redrawn in another manner (outlined, posterised, line art).
REDRAWN_SHARE = 0.3


def normalise(rgb: Tensor) -> Tensor:
    """Normalise RGB in [0, 1], shape (n, 3, h, w), with CLIP's mean and deviation."""
    return (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def on_white(premultiplied: Tensor) -> Tensor:
    """Put uint8 premultiplied RGBA, shape (n, h, w, 4), on white; returns RGB in [0, 1], (n, 3, h, w)."""
    rgba = premultiplied.permute(0, 3, 1, 2).float().div_(255)
    return rgba[:, :3] + (1 - rgba[:, 3:])


class Augmenter:
    """Augments batches; one instance for each thread, because it owns its random generator."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, premultiplied: Tensor, monochrome: Tensor, may_flip: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            premultiplied: uint8, shape (n, side, side, 4), RGBA multiplied by alpha.
            monochrome: bool, shape (n,); those drawings get a random colour.
            may_flip: bool, shape (n,); whether a mirrored drawing still shows the same.

        Returns:
            Normalised float32 images of shape (n, 3, side, side).
        """
        rgba = premultiplied.permute(0, 3, 1, 2).float().div_(255)
        self._recolour(rgba, monochrome)
        rgba = self._redraw(rgba)
        rgba = self._move(rgba, may_flip)
        rgb = rgba[:, :3] + (1 - rgba[:, 3:]) * self._backgrounds(len(rgba), rgba.shape[-1])
        return normalise(self._disturb(rgb).clamp_(0, 1))

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self._random) * (high - low) + low

    def _chosen(self, count: int, share: float) -> Tensor:
        return (self._uniform(count) < share).nonzero().flatten()

    def _recolour(self, rgba: Tensor, monochrome: Tensor) -> None:
        rows = monochrome.nonzero().flatten()
        if len(rows):
            ink = self._uniform(len(rows), 3, 1, 1, high=0.75)
            ink[self._chosen(len(rows), 0.5)] = 0.0
            rgba[rows, :3] += (rgba[rows, 3:] - rgba[rows, :3]) * ink

    def _redraw(self, rgba: Tensor) -> Tensor:
        rows = self._chosen(len(rgba), REDRAWN_SHARE)
        if not len(rows):
            return rgba
        some = rgba[rows]
        alpha = some[:, 3:]
        flat = self._uniform(len(rows), 1, 1, 1) < 0.6
        levels = self._uniform(len(rows), 1, 1, 1, low=2.0, high=5.0)
        posterised = (some[:, :3] * levels).round() / levels
        colour = torch.where(flat, posterised.minimum(alpha), some[:, :3])
        luma = some[:, :3].mean(1, keepdim=True) + 0.5 * (1 - alpha)
        contrast = max_pool2d(luma, 3, 1, 1) + max_pool2d(-luma, 3, 1, 1)
        threshold = self._uniform(len(rows), 1, 1, 1, low=0.12, high=0.35)
        inner = ((contrast - threshold) * 8).clamp(0, 1) * alpha
        outer = (max_pool2d(alpha, 3, 1, 1) - alpha).clamp(0, 1)
        line_art = self._uniform(len(rows), 1, 1, 1) < 0.2
        fill = self._uniform(len(rows), 1, 1, 1).round()
        colour = torch.where(line_art, alpha * fill, colour)
        only_outer = self._uniform(len(rows), 1, 1, 1) < 0.3
        inner = torch.where(only_outer & ~line_art, torch.zeros_like(inner), inner)
        covered = (alpha + outer).clamp(max=1)
        rgba[rows] = torch.cat([colour * (1 - inner), torch.where(line_art & (fill == 0), inner + outer, covered)], 1)
        return rgba

    def _move(self, rgba: Tensor, may_flip: Tensor) -> Tensor:
        count = len(rgba)
        scale = self._uniform(count, low=0.55, high=1.12)
        close = self._chosen(count, 0.5)
        scale[close] = self._uniform(len(close), low=0.85, high=1.05)
        aspect = self._uniform(count, low=-0.15, high=0.15).exp()
        angle = self._uniform(count, low=-1, high=1) ** 3 * math.radians(25)
        mirror = torch.where(may_flip & (self._uniform(count) < 0.5), -1.0, 1.0)
        room = (1.08 - scale).clamp(min=0.06)
        shift = self._uniform(count, 2, low=-1, high=1) * room[:, None]
        cosine, sine = angle.cos() / scale, angle.sin() / scale
        theta = torch.stack([cosine * aspect * mirror, -sine * mirror, sine * aspect, cosine], 1).view(-1, 2, 2)
        theta = torch.cat([theta, -theta @ shift[:, :, None]], 2)
        grid = affine_grid(theta, list(rgba.shape), align_corners=False)
        return grid_sample(rgba, grid, align_corners=False)

    def _backgrounds(self, count: int, side: int) -> Tensor:
        background = torch.ones(count, 3, 1, 1).repeat(1, 1, side, side)
        kind = self._uniform(count)
        black, solid = kind < 0.06, (kind >= 0.06) & (kind < 0.28)
        gradient = ((kind >= 0.28) & (kind < 0.42)).nonzero().flatten()
        scene = ((kind >= 0.42) & (kind < 0.56)).nonzero().flatten()
        background[black] = 0
        background[solid] = self._uniform(int(solid.sum()), 3, 1, 1)
        if len(gradient):
            corners = self._uniform(len(gradient), 3, 2, 2)
            background[gradient] = interpolate(corners, side, mode="bilinear", align_corners=True)
        if len(scene):
            coarse = interpolate(self._uniform(len(scene), 3, 4, 4), side, mode="bilinear")
            fine = interpolate(self._uniform(len(scene), 1, 18, 18, low=-0.5, high=0.5), side, mode="bilinear")
            background[scene] = (coarse + fine * self._uniform(len(scene), 1, 1, 1)).clamp_(0, 1)
        return background

    def _disturb(self, rgb: Tensor) -> Tensor:
        rows = self._chosen(len(rgb), 0.6)
        some = rgb[rows]
        contrast = self._uniform(len(rows), 1, 1, 1, low=-0.35, high=0.35).exp()
        tint = self._uniform(len(rows), 3, 1, 1, low=-0.12, high=0.12)
        rgb[rows] = (some - 0.5) * contrast + 0.5 + tint
        mixed = self._chosen(len(rgb), 0.2)
        mix = torch.eye(3) + self._uniform(len(mixed), 3, 3, low=-0.25, high=0.25)
        rgb[mixed] = torch.einsum("nij,njhw->nihw", mix / mix.sum(2, keepdim=True), rgb[mixed])
        grey = self._chosen(len(rgb), 0.1)
        rgb[grey] = rgb[grey].mean(1, keepdim=True).expand(-1, 3, -1, -1)
        blurred = self._chosen(len(rgb), 0.1)
        rgb[blurred] = avg_pool2d(rgb[blurred], 3, 1, 1, count_include_pad=False)
        noisy = self._chosen(len(rgb), 0.1)
        noise = torch.randn(rgb[noisy].shape, generator=self._random)
        rgb[noisy] += noise * self._uniform(len(noisy), 1, 1, 1, high=0.12)
        for row in self._chosen(len(rgb), 0.03).tolist():
            rgb[row] = self._compress(rgb[row])
        return rgb

    def _compress(self, rgb: Tensor) -> Tensor:
        pixels = (rgb.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        quality = int(self._uniform(1, low=25, high=85))
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
        decoded = np.array(Image.open(buffer))
        return torch.from_numpy(decoded).permute(2, 0, 1).float().div_(255)
