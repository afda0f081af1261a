"""The towers' sums in oneDNN's kernels, for x86 CPUs: weights packed once, activations fused into the product before.

In: a CLIP of transformers, in fp32 or bf16, or with quantised layers. Out: the same CLIP, faster; in fp32 embeddings
stay within 1e-5. Never an approximation: whatever has no such kernel here is left as it was.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from transformers.activations import GELUActivation, QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPMLP

#: `quick_gelu(x) = x * sigmoid(1.702 x)`, which is `silu(1.702 x) / 1.702`.
_QUICK = 1.702
#: Rows that a product has at batch 32 of ViT-B/32: a hint for the layout of weights.
_TYPICAL_ROWS = 1600
#: Which approximation of an activation.
_EXACT = "none"
_ops: Any = torch.ops.mkldnn


def can_pack(precision: str = "fp32") -> bool:
    """Whether this machine and this torch have the kernels; those for bf16 need AVX-512 or its successors."""
    is_x86 = platform.machine().lower() in {"x86_64", "amd64"}
    has_products = hasattr(_ops, "_linear_pointwise") and hasattr(_ops, "_reorder_linear_weight")
    has_kernels = is_x86 and torch.backends.mkldnn.is_available() and has_products
    return has_kernels and (precision != "bf16" or bool(_ops._is_mkldnn_bf16_supported()))


def fold_quick_gelu(model: torch.nn.Module) -> None:
    """Move the factor of quick_gelu into the weights around it: what stays is SiLU, for which there are kernels.

    Args:
        model: A CLIP in fp32; changed in place.
    """
    for block in model.modules():
        if isinstance(block, CLIPMLP) and isinstance(block.activation_fn, QuickGELUActivation):
            with torch.no_grad():
                block.fc1.weight.mul_(_QUICK)
                block.fc1.bias.mul_(_QUICK)
                block.fc2.weight.div_(_QUICK)
            block.activation_fn = torch.nn.SiLU(inplace=True)


def pack(model: torch.nn.Module) -> None:
    """Put packed layers in place of linear layers, MLPs and the cut into patches.

    Args:
        model: A CLIP on the CPU, in fp32 or bf16, after `fold_quick_gelu`; changed in place.
    """
    for name, child in list(model.named_children()):
        if isinstance(child, CLIPMLP) and (fused := _fused_activation(child)):
            setattr(model, name, PackedMLP(child, fused))
        elif isinstance(child, torch.nn.Linear):
            setattr(model, name, PackedLinear(child))
        elif isinstance(child, torch.nn.Conv2d) and _cuts_patches(child):
            setattr(model, name, PackedPatches(child))
        else:
            pack(child)


class PackedLinear(torch.nn.Module):
    """A linear layer whose weights lie as oneDNN reads them fastest.

    Args:
        layer: What it computes.
        activation: Of oneDNN's names, applied to what comes out.
    """

    def __init__(self, layer: torch.nn.Linear, activation: str = "none") -> None:
        super().__init__()
        self._weight = _ops._reorder_linear_weight(layer.weight.detach(), _TYPICAL_ROWS)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._activation = activation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return `activation(rows @ weight.T + bias)`; `(…, in)` to `(…, out)`."""
        out: torch.Tensor = _ops._linear_pointwise(rows, self._weight, self._bias, self._activation, [], _EXACT)
        return out


class PackedMLP(torch.nn.Module):
    """Two linear layers, the activation between them applied while the first one's result is still in the cache.

    Args:
        block: What it computes.
        activation: Of oneDNN's names.
    """

    def __init__(self, block: CLIPMLP, activation: str) -> None:
        super().__init__()
        self._first = PackedLinear(block.fc1, activation)
        self._second = PackedLinear(block.fc2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the block's result; `(…, dim)` to `(…, dim)`."""
        out: torch.Tensor = self._second(self._first(hidden_states))
        return out


class PackedPatches(torch.nn.Module):
    """A convolution whose stride is its size: each patch is a row, and all rows are one product.

    Args:
        convolution: What it computes.
    """

    def __init__(self, convolution: torch.nn.Conv2d) -> None:
        super().__init__()
        #: Read by transformers for its dtype.
        self.weight = convolution.weight
        self._side = int(convolution.kernel_size[0])
        self._packed = _ops._reorder_linear_weight(convolution.weight.detach().flatten(1), _TYPICAL_ROWS)
        self._bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of each patch; `(n, 3, height, width)` to `(n, dim, down, across)`."""
        images, channels, height, width = pixels.shape
        side = self._side
        down, across = height // side, width // side
        cut = pixels[:, :, : down * side, : across * side].reshape(images, channels, down, side, across, side)
        rows = cut.permute(0, 2, 4, 1, 3, 5).reshape(images, down * across, channels * side * side)
        features: torch.Tensor = _ops._linear_pointwise(rows, self._packed, self._bias, "none", [], _EXACT)
        patches: torch.Tensor = features.transpose(1, 2).unflatten(2, (down, across))
        return patches


def _fused_activation(block: CLIPMLP) -> str | None:
    """Return oneDNN's name of a block's activation; None where it is not fused: quantised layers take none."""
    if not isinstance(block.fc1, torch.nn.Linear):
        return None
    if isinstance(block.activation_fn, torch.nn.SiLU):
        return "swish"
    is_exact = isinstance(block.activation_fn, GELUActivation) and block.activation_fn.act is torch.nn.functional.gelu
    return "gelu" if is_exact else None


def _cuts_patches(layer: torch.nn.Conv2d) -> bool:
    is_square = layer.kernel_size[0] == layer.kernel_size[1]
    return is_square and layer.stride == layer.kernel_size and layer.padding == (0, 0) and layer.groups == 1
