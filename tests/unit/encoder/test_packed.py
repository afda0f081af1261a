"""The towers in every precision on tiny random weights: the same numbers when packed, and the dtypes on the way."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.modeling_clip import CLIPMLP

from worker.encoder import precision as precisions
from worker.encoder.packed import PackedLinear, PackedMLP, PackedPatches, can_pack, fold_quick_gelu, pack
from worker.encoder.precision import apply_precision, choose_precision, tower_dtype
from worker.errors import UsageError

CPU = torch.device("cpu")
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 24, "vocab_size": 600, "bos_token_id": 598, "eos_token_id": 599, "projection_dim": 32,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 36, "patch_size": 8, "projection_dim": 32,
}  # fmt: skip
TOKENS = torch.tensor([[598, 5, 7, 9, 599], [598, 8, 599, 599, 599]])

needs_kernels = pytest.mark.skipif(not can_pack(), reason="this machine has no such kernels")


def clip(activation: str = "quick_gelu") -> Any:
    """Make a CLIP of random weights, large enough ones for its activations to matter."""
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=TEXT | {"hidden_act": activation},
        vision_config=VISION | {"hidden_act": activation},
        projection_dim=32,
    )
    model: Any = CLIPModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.dim() == 2 and "embedding" not in name:
                weight.mul_(5)
    return model


def images(count: int) -> torch.Tensor:
    """Make pixel values up."""
    return torch.randn(count, 3, 36, 36, generator=torch.Generator().manual_seed(count))


def features(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run both towers; unit rows."""
    with torch.inference_mode():
        seen = model.get_image_features(pixel_values=pixels).pooler_output.float()
        read = model.get_text_features(input_ids=TOKENS).pooler_output.float()
    return seen / seen.norm(dim=-1, keepdim=True), read / read.norm(dim=-1, keepdim=True)


def all_of(model: torch.nn.Module, kind: type[torch.nn.Module]) -> list[torch.nn.Module]:
    """Return the model's modules of one kind."""
    return [module for module in model.modules() if isinstance(module, kind)]


@needs_kernels
@pytest.mark.parametrize("count", [1, 3, 32])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_new", "relu"])
def test_packed_towers_compute_the_same_within_a_hundred_thousandth(activation: str, count: int) -> None:
    model = clip(activation)
    theirs = features(copy.deepcopy(model), images(count))
    ours = features(apply_precision(model, "fp32", CPU), images(count))
    for packed, plain in zip(ours, theirs, strict=True):
        assert (packed - plain).abs().max() < 1e-5


@needs_kernels
def test_packing_leaves_no_linear_layer_and_no_convolution_as_it_was() -> None:
    packed = apply_precision(clip(), "fp32", CPU)
    assert not all_of(packed, torch.nn.Linear)
    assert not all_of(packed, torch.nn.Conv2d)
    assert not all_of(packed, CLIPMLP)
    assert len(all_of(packed, PackedMLP)) == 4
    assert len(all_of(packed, PackedPatches)) == 1
    assert len(all_of(packed, PackedLinear)) == 2 * 2 * (4 + 2) + 2


@needs_kernels
def test_an_activation_that_has_no_kernel_is_left_between_packed_layers() -> None:
    packed = apply_precision(clip("gelu_new"), "fp32", CPU)
    assert len(all_of(packed, CLIPMLP)) == 4
    assert not all_of(packed, torch.nn.Linear)


def test_folding_quick_gelu_changes_no_number() -> None:
    model = clip()
    before = features(copy.deepcopy(model), images(3))
    fold_quick_gelu(model)
    assert len(all_of(model, torch.nn.SiLU)) == 4
    for after, then in zip(features(model, images(3)), before, strict=True):
        assert (after - then).abs().max() < 1e-5


@needs_kernels
@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(3, 8, kernel_size=8, stride=4),
        torch.nn.Conv2d(3, 8, kernel_size=8, stride=8, padding=4),
        torch.nn.Conv2d(3, 9, kernel_size=8, stride=8, groups=3),
        torch.nn.Conv2d(3, 8, kernel_size=(8, 4), stride=(8, 4)),
    ],
    ids=["overlapping", "padded", "grouped", "oblong"],
)
def test_a_convolution_that_does_not_cut_patches_stays(layer: torch.nn.Conv2d) -> None:
    model = torch.nn.Sequential(layer)
    pack(model)
    assert model[0] is layer


@needs_kernels
def test_patches_with_a_bias_and_a_rest_at_the_edge_are_those_of_the_convolution() -> None:
    layer = torch.nn.Conv2d(3, 8, kernel_size=8, stride=8)
    pixels = images(2)
    with torch.inference_mode():
        theirs, ours = layer(pixels), PackedPatches(layer)(pixels)
    assert ours.shape == theirs.shape == (2, 8, 4, 4)
    assert (ours - theirs).abs().max() < 1e-5


def test_without_the_kernels_the_model_is_only_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "can_pack", lambda _: False)
    model = clip()
    theirs = features(copy.deepcopy(model), images(3))
    same = apply_precision(model, "fp32", CPU)
    assert len(all_of(same, CLIPMLP)) == 4
    assert all(torch.equal(ours, plain) for ours, plain in zip(features(same, images(3)), theirs, strict=True))


# -- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_pixels_go_in_and_features_come_out_in_the_dtype_of_the_precision(
    precision: str, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packs:
        monkeypatch.setattr(precisions, "can_pack", lambda _: False)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    assert tower_dtype(precision) == dtype
    model: Any = apply_precision(clip(), precision, CPU)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    with torch.inference_mode():
        assert model.get_image_features(pixel_values=images(2).to(dtype)).pooler_output.dtype == dtype
        assert model.get_text_features(input_ids=TOKENS).pooler_output.dtype == dtype


@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.998), ("fp16", 0.9999), ("int8", 0.97)])
def test_a_faster_precision_points_in_the_same_direction(precision: str, cosine: float) -> None:
    model = clip()
    exact, _ = features(copy.deepcopy(model), images(8))
    close, _ = features(apply_precision(model, precision, CPU), images(8).to(tower_dtype(precision)))
    assert (close * exact).sum(dim=1).min() > cosine


def test_int8_quantises_every_linear_layer_with_a_scale_for_each_channel() -> None:
    quantised = apply_precision(clip(), "int8", CPU)
    layers = all_of(quantised, torch.ao.nn.quantized.dynamic.Linear)
    assert len(layers) == 2 * 2 * (4 + 2) + 2
    assert not all_of(quantised, torch.nn.Linear)
    schemes: set[Any] = {layer.weight().qscheme() for layer in layers}  # type: ignore[operator]
    assert schemes == {torch.per_channel_affine}


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_auto_is_fp32_everywhere_until_the_drift_of_another_one_was_measured(kind: str) -> None:
    assert choose_precision("auto", torch.device(kind)) == "fp32"


@pytest.mark.parametrize(
    ("asked", "kind", "allowed"),
    [
        ("fp32", "cpu", True), ("bf16", "cpu", True), ("int8", "cpu", True), ("fp16", "cpu", False),
        ("fp32", "cuda", True), ("bf16", "cuda", True), ("fp16", "cuda", True), ("int8", "cuda", False),
    ],
)  # fmt: skip
def test_a_precision_that_the_device_cannot_compute_in_is_wrong_usage(asked: str, kind: str, allowed: bool) -> None:
    if allowed:
        assert choose_precision(asked, torch.device(kind)) == asked
        return
    with pytest.raises(UsageError, match=f"SLUICE_PRECISION={asked}"):
        choose_precision(asked, torch.device(kind))


def test_the_levels_of_pixels_are_looked_up_alike_on_every_device() -> None:
    from worker.encoder.clip import look_up, look_up_on_device

    table = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    views = list(np.random.default_rng(1).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        there = look_up_on_device(views, torch.from_numpy(table).to(dtype))
        assert there.dtype == dtype
        assert torch.equal(there, look_up(views, table).to(dtype))
