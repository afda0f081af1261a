"""How the towers compute: fp32, bf16, fp16 or int8; embeddings leave as float32 in any case.

In: a loaded model and the precision asked for. Out: the model, ready for it. Never a silent change of precision.
"""

from __future__ import annotations

import warnings

import torch

from worker.encoder.packed import can_pack, fold_quick_gelu, pack
from worker.errors import UsageError

_PACKED = {"fp32", "bf16", "int8"}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(asked: str, device: torch.device) -> str:
    """Return the precision to compute in.

    `auto` is fp32: a faster precision is accepted for a policy only after its verdict drift was measured.

    Raises:
        UsageError: There is no such precision, or the device cannot compute in it.
    """
    if asked not in {"auto", "int8", *_DTYPES}:
        raise UsageError(f"SLUICE_PRECISION={asked} is not one of auto, {', '.join(_DTYPES)}, int8")
    if asked == "fp16" and device.type == "cpu":
        raise UsageError("SLUICE_PRECISION=fp16 needs a GPU; use fp32, bf16 or int8 on a CPU")
    if asked == "int8" and device.type != "cpu":
        raise UsageError("SLUICE_PRECISION=int8 is for CPUs; use bf16 or fp16 on a GPU")
    return "fp32" if asked == "auto" else asked


def tower_dtype(precision: str) -> torch.dtype:
    """Return the dtype that a tower takes: int8 quantises inside, and takes fp32."""
    return _DTYPES.get(precision, torch.float32)


def apply_precision(model: torch.nn.Module, precision: str, device: torch.device) -> torch.nn.Module:
    """Return an fp32 model in another precision, on its device: cast, or its linear layers quantised for int8.

    int8 quantises weights once, each output channel with its own scale, and activations as they come.

    Args:
        model: An fp32 CLIP on the CPU; taken over, do not use it any more.
        precision: fp32, bf16, fp16 or int8.
        device: Where it shall run; on a CPU it is packed too.

    Source:
        PyTorch documentation, `torch.ao.quantization.quantize_dynamic`.
    """
    is_packed = device.type == "cpu" and precision in _PACKED and can_pack(precision)
    if is_packed:
        fold_quick_gelu(model)
    ready = _quantise(model) if precision == "int8" else model.to(tower_dtype(precision))
    if is_packed:
        pack(ready)
    return ready.to(device)


def _quantise(model: torch.nn.Module) -> torch.nn.Module:
    with warnings.catch_warnings():
        # torch.ao is deprecated in favour of torchao, a dependency of its own that is no faster here.
        warnings.simplefilter("ignore")
        quantisation = torch.ao.quantization
        if "onednn" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "onednn"
        layers = {torch.nn.Linear: quantisation.per_channel_dynamic_qconfig}
        quantised: torch.nn.Module = quantisation.quantize_dynamic(model, layers, dtype=torch.qint8, inplace=True)
    return quantised
