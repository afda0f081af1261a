"""The encoder and `sluice classify` against transformers itself, on the checkpoints that anybody can have."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import encode, sluice, typed, write_random_clip
from transformers import BertConfig, BertModel, CLIPModel, CLIPProcessor
from transformers.image_utils import load_image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import worker.encoder
from worker.encoder.clip import ClipEncoder, View, load_encoder
from worker.errors import ModelUnavailable, UsageError
from worker.intake.decode import Limits, ViewSpec, decode

pytestmark = pytest.mark.thorough

BUILTIN = Path(worker.encoder.__file__).parent / "builtin"
LIMITS = Limits(10**8, 10**8, ("JPEG", "PNG"))
LABELS = [
    "a photo of a dog",
    "a drawing of a knife",
    "",
    "Ein Bild von zwei Äpfeln 🍎",
    "a sentence that is far too long for any context, " * 40,
]


@dataclass(frozen=True)
class Reference:
    """A checkpoint as ours and as transformers' own."""

    #: What SLUICE_MODEL would be.
    name: str
    directory: Path
    ours: ClipEncoder
    model: Any
    processor: Any


def _refer(name: str, directory: Path) -> Reference:
    processor = CLIPProcessor.from_pretrained(directory)
    # Where torchvision is installed, transformers would resize with that, to other levels.
    processor.image_processor = CLIPImageProcessorPil.from_pretrained(directory)
    return Reference(
        name,
        directory,
        load_encoder(name, None, "cpu", "fp32", 4),
        CLIPModel.from_pretrained(directory, dtype=torch.float32).eval(),
        processor,
    )


@pytest.fixture(scope="session")
def tiny(tiny_clip: Path) -> Reference:
    """Give the random CLIP of 32 dimensions."""
    return _refer(str(tiny_clip), tiny_clip)


@pytest.fixture(scope="session")
def builtin() -> Reference:
    """Give the packaged checkpoint."""
    assert (BUILTIN / "model.safetensors").is_file(), "the packaged checkpoint is not there"
    return _refer("builtin", BUILTIN)


@pytest.fixture(scope="session")
def vit_b32(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Give a ViT-B/32 with random weights: the geometry of OpenAI's checkpoint."""
    directory = write_random_clip(tmp_path_factory.mktemp("vit-b-32"))
    return _refer(str(directory), directory)


@pytest.fixture(params=["tiny", "builtin", "vit_b32"])
def clip(request: pytest.FixtureRequest) -> Reference:
    """Give each checkpoint in turn."""
    reference: Reference = request.getfixturevalue(request.param)
    return reference


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    """Draw noise over a tint, a different one each."""
    dice = np.random.default_rng(7)
    return [
        Image.fromarray(
            (dice.normal(dice.integers(0, 256, 3), 60, (height, width, 3))).clip(0, 255).astype(np.uint8), "RGB"
        )
        for width, height in sizes
    ]


def views(encoder: ClipEncoder, images: Sequence[Image.Image]) -> list[View]:
    """Decode images as the worker does."""
    spec = encoder.preprocessing
    shape = ViewSpec(spec.shortest_edge, spec.crop, spec.resample)
    return [decode(encode(image), LIMITS, shape).views[0] for image in images]


def by_transformers(reference: Reference, image: Image.Image, labels: Sequence[str]) -> list[float]:
    """Return `logits_per_image.softmax`, as transformers' documentation does."""
    inputs = reference.processor(
        text=list(labels), images=image, return_tensors="pt", padding=True, truncation=True,
        max_length=reference.model.config.text_config.max_position_embeddings,
    )  # fmt: skip
    with torch.inference_mode():
        shares: list[float] = reference.model(**inputs).logits_per_image.softmax(dim=1)[0].tolist()
    return shares


def unit(features: Any) -> npt.NDArray[np.float32]:
    """Normalise what transformers returns."""
    rows = features.pooler_output
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


# -- the same numbers ------------------------------------------------------------------------------------------------


def test_pixel_values_are_those_of_clip_processor_to_the_last_bit(clip: Reference) -> None:
    images = pictures((300, 200), (200, 300), (224, 224), (31, 57), (1, 1), (640, 480), (7, 40))
    theirs = clip.processor.image_processor(images, return_tensors="pt")["pixel_values"]
    ours = clip.ours.pixel_values(views(clip.ours, images))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs)


def test_every_level_of_every_channel_is_normalised_to_the_last_bit(clip: Reference) -> None:
    side = clip.ours.preprocessing.crop
    levels = np.resize(np.arange(256, dtype=np.uint8), (side, side))
    square = np.stack([levels, np.rot90(levels), 255 - levels], axis=-1)
    theirs = clip.processor.image_processor(
        [Image.fromarray(square)], return_tensors="pt", do_resize=False, do_center_crop=False
    )
    assert set(square[..., 0].flat) == set(range(256))
    assert torch.equal(clip.ours.pixel_values([square]), theirs["pixel_values"])


def test_image_embeddings_are_the_normalised_features_of_transformers(clip: Reference) -> None:
    images = pictures((300, 200), (64, 64), (97, 311))
    inputs = clip.processor.image_processor(images, return_tensors="pt")
    with torch.inference_mode():
        theirs = unit(clip.model.get_image_features(**inputs))
    np.testing.assert_allclose(clip.ours.embed_images(views(clip.ours, images)), theirs, atol=1e-5)


def test_text_embeddings_are_the_normalised_features_of_transformers(clip: Reference) -> None:
    length = clip.model.config.text_config.max_position_embeddings
    inputs = clip.processor.tokenizer(LABELS, return_tensors="pt", padding=True, truncation=True, max_length=length)
    assert inputs["input_ids"].shape[1] == length, "one of the labels must be too long"
    with torch.inference_mode():
        theirs = unit(clip.model.get_text_features(**inputs))
    np.testing.assert_allclose(clip.ours.embed_texts(LABELS), theirs, atol=1e-5)


def test_shares_are_the_softmax_of_transformers_logits(clip: Reference) -> None:
    (image,) = pictures((300, 200))
    (view,) = views(clip.ours, [image])
    shares = clip.ours.classify(view, LABELS)
    np.testing.assert_allclose(shares, by_transformers(clip, image, LABELS), atol=1e-4)
    assert sum(shares) == pytest.approx(1)


def test_the_logit_scale_is_the_checkpoints_own(clip: Reference) -> None:
    assert clip.ours.logit_scale == pytest.approx(clip.model.logit_scale.exp().item(), rel=1e-6)


# -- the shape of embeddings -----------------------------------------------------------------------------------------


def test_embeddings_are_unit_rows_of_float32_in_order_whatever_the_batch(clip: Reference) -> None:
    images = pictures(*[(40 + 20 * n, 60) for n in range(6)])
    squares = views(clip.ours, images)
    sentences = [f"{n} photos of {'very ' * n}many things" for n in range(6)]
    # Batches of four: one whole, one not.
    for together, alone in (
        (clip.ours.embed_images(squares), [clip.ours.embed_images([square]) for square in squares]),
        (clip.ours.embed_texts(sentences), [clip.ours.embed_texts([sentence]) for sentence in sentences]),
    ):
        assert together.shape == (6, clip.ours.dim)
        assert together.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
        assert len(np.unique(together.round(3), axis=0)) == 6, "rows alike would not show their order"


def test_nothing_is_embedded_as_no_rows(clip: Reference) -> None:
    for nothing in (clip.ours.embed_images([]), clip.ours.embed_texts([])):
        assert nothing.shape == (0, clip.ours.dim)
        assert nothing.dtype == np.float32


def test_warming_up_runs_both_towers(clip: Reference) -> None:
    clip.ours.warm_up()


# -- precision and device --------------------------------------------------------------------------------------------

#: How close a row must stay to its row in fp32.
COSINES = {"bf16": 0.999, "int8": 0.995}


@pytest.mark.parametrize("precision", COSINES)
def test_a_faster_precision_stays_close_to_fp32(precision: str, clip: Reference) -> None:
    faster = load_encoder(clip.name, None, "cpu", precision, 4)
    squares = views(clip.ours, pictures((300, 200), (64, 64), (97, 311)))
    assert faster.precision == precision
    for exact, close in (
        (clip.ours.embed_images(squares), faster.embed_images(squares)),
        (clip.ours.embed_texts(LABELS), faster.embed_texts(LABELS)),
    ):
        assert close.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(close, axis=1), 1, atol=1e-5)
        assert (exact * close).sum(axis=1).min() >= COSINES[precision]
        assert not np.array_equal(exact, close), "the towers did not compute in another precision"
    assert faster.revision == clip.ours.revision
    # A logit is this number times a similarity, and so part of every score.
    assert faster.logit_scale == clip.ours.logit_scale


def test_auto_is_fp32_on_the_cpu_where_there_is_nothing_better(tiny: Reference) -> None:
    encoder = load_encoder(tiny.name, None, "auto", "auto", 4)
    assert encoder.precision == "fp32"
    assert encoder.device.type == ("cuda" if torch.cuda.is_available() else encoder.device.type)


def test_fp16_on_a_cpu_is_wrong_usage(tiny: Reference) -> None:
    with pytest.raises(UsageError, match="SLUICE_PRECISION=fp16"):
        load_encoder(tiny.name, None, "cpu", "fp16", 4)


def test_a_precision_that_nobody_knows_is_wrong_usage(tiny: Reference) -> None:
    with pytest.raises(UsageError, match="SLUICE_PRECISION=fp64"):
        load_encoder(tiny.name, None, "cpu", "fp64", 4)


@pytest.mark.parametrize("device", ["gpu", "xpu", "meta", "cuda:99", "cpu:7", "cuda:", "0", ""])
def test_a_device_that_is_not_there_is_wrong_usage(device: str, tiny: Reference) -> None:
    with pytest.raises(UsageError, match=f"SLUICE_DEVICE={device}"):
        load_encoder(tiny.name, None, device, "fp32", 4)


# -- the name of a checkpoint ----------------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny: Reference, tmp_path: Path) -> Path:
    """Copy the tiny checkpoint, to be changed."""
    return Path(shutil.copytree(tiny.directory, tmp_path / "copy"))


def load(directory: Path | str) -> ClipEncoder:
    """Load a checkpoint on the CPU."""
    return load_encoder(str(directory), None, "cpu", "fp32", 4)


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write a checkpoint's weights anew."""
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_the_revision_is_a_function_of_the_weights(tiny: Reference, copy: Path) -> None:
    revision = tiny.ours.revision
    assert len(revision) == 12
    assert int(revision, 16)
    (copy / "README.md").write_text("no weight")
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert load(copy).revision == revision
    change_weights(copy, lambda weights: weights | {"logit_scale": weights["logit_scale"] + 1})
    changed = load(copy)
    assert changed.revision != revision
    assert changed.name == f"{copy}@{changed.revision}"


def test_the_packaged_checkpoint_is_called_builtin(builtin: Reference) -> None:
    assert builtin.ours.id == "builtin"
    assert builtin.ours.name == f"builtin@{builtin.ours.revision}"


# -- what is no checkpoint -------------------------------------------------------------------------------------------


def refused(directory: Path | str) -> str:
    """Load what cannot be loaded; the one line that says so."""
    with pytest.raises(ModelUnavailable) as refusal:
        load(directory)
    line = str(refusal.value)
    assert "\n" not in line
    assert str(directory) in line
    assert "SLUICE_MODEL=builtin" in line
    assert "HF_HOME" in line
    return line


def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    refused(tmp_path / "nothing")


def test_an_empty_directory_is_unavailable(tmp_path: Path) -> None:
    refused(tmp_path)


def test_pickled_weights_are_never_read(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    assert "safetensors" in refused(copy)
    refused(copy / "pytorch_model.bin")


def test_a_file_is_no_checkpoint(copy: Path) -> None:
    assert "it is a file" in refused(copy / "model.safetensors")
    refused(copy / "config.json")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda data: data[:-1000], id="cut"),
        pytest.param(lambda data: data[:100], id="cut in the header"),
        pytest.param(lambda _: b"version https://git-lfs.github.com/spec/v1\n", id="a pointer of Git LFS"),
        pytest.param(lambda data: b"\xff" * 8 + data[8:], id="a boundless header"),
        pytest.param(lambda data: data[:8] + b"[" * 500 + data[508:], id="a broken header"),
    ],
)
def test_damaged_weights_are_unavailable(damage: Callable[[bytes], bytes], copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    refused(copy)


@pytest.mark.parametrize("part", ["logit_scale", "visual_projection.weight", "text_model.embeddings"])
def test_a_checkpoint_without_some_of_its_weights_is_refused_and_not_filled_up_with_random_ones(
    part: str, copy: Path
) -> None:
    change_weights(copy, lambda weights: {name: weight for name, weight in weights.items() if part not in name})
    line = refused(copy)
    assert "missing" in line
    assert part in line


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    change_weights(copy, lambda weights: weights | {"visual_projection.weight": torch.zeros(16, 32)})
    assert "visual_projection.weight" in refused(copy)


def test_a_model_that_is_no_clip_is_refused(copy: Path, tmp_path: Path) -> None:
    bert = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )  # fmt: skip
    BertModel(bert).save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert")
    # And not even beside the processor of a CLIP.
    for file in (tmp_path / "bert").iterdir():
        shutil.copy(file, copy)
    assert "not a whole CLIP" in refused(copy)


@pytest.mark.parametrize(
    "files",
    [["tokenizer.json", "tokenizer_config.json"], ["tokenizer.json"], ["processor_config.json"], ["config.json"]],
    ids=" and ".join,
)
def test_a_checkpoint_without_one_of_its_files_is_refused(files: list[str], copy: Path) -> None:
    for file in files:
        (copy / file).unlink()
    refused(copy)


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": 7}'])
def test_a_checkpoint_with_a_broken_file_is_refused(file: str, text: str, copy: Path) -> None:
    (copy / file).write_text(text)
    refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"do_center_crop": False},
        {"do_resize": False},
        {"do_normalize": False},
        {"size": {"height": 32, "width": 32}},
        {"crop_size": {"height": 32, "width": 16}},
        {"crop_size": {"height": 64, "width": 64}},
    ],
    ids=json.dumps,
)
def test_preprocessing_that_views_would_not_equal_is_refused(change: dict[str, Any], copy: Path) -> None:
    settings = json.loads((copy / "processor_config.json").read_text())
    settings["image_processor"] |= change
    (copy / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelUnavailable, match="image processor"):
        load(copy)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a JPEG that lies on its side."""
    exif = Image.Exif()
    exif[274] = 6
    file = tmp_path_factory.mktemp("photo") / "photo.jpg"
    file.write_bytes(encode(pictures((320, 200))[0], "JPEG", exif=exif))
    return file


@pytest.fixture(scope="session")
def logo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a PNG with colours under its transparency."""
    image = pictures((150, 210))[0].convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    file = tmp_path_factory.mktemp("logo") / "logo.png"
    file.write_bytes(encode(image))
    return file


@pytest.mark.parametrize(("model", "file"), [("builtin", "photo"), ("builtin", "logo"), ("vit_b32", "photo")])
def test_the_command_classifies_with_the_numbers_of_transformers(
    model: str, file: str, request: pytest.FixtureRequest
) -> None:
    reference: Reference = request.getfixturevalue(model)
    image: Path = request.getfixturevalue(file)
    labels = [label for label in LABELS if label]
    ended = typed("classify", image, "--labels", *labels, "--json", settings={"model": reference.name})
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    (line,) = ended.stdout.splitlines()
    told = json.loads(line)
    with Image.open(io.BytesIO(image.read_bytes())) as stored:
        theirs = by_transformers(reference, load_image(stored), labels)
    assert list(told["scores"]) == labels
    np.testing.assert_allclose(list(told["scores"].values()), theirs, atol=1e-4)
    assert told["best"] == labels[int(np.argmax(theirs))]
    assert told["image"] == str(image)
    assert told["model"] == {"id": reference.name, "revision": reference.ours.revision, "precision": "fp32"}


def test_a_checkpoint_that_is_not_whole_ends_the_command_in_one_line(copy: Path, photo: Path) -> None:
    # transformers would print a table, and go on with random numbers.
    change_weights(copy, lambda weights: {"logit_scale": weights["logit_scale"]})
    ended = typed("classify", photo, "--labels", "a", "b", settings={"model": copy})
    assert (ended.returncode, ended.stdout) == (3, "")
    (line,) = ended.stderr.splitlines()
    assert "not a whole CLIP" in line


def test_without_the_hub_the_command_names_what_to_set_in_one_line(photo: Path, tmp_path: Path) -> None:
    ended = sluice(
        "classify", photo, "--labels", "a", "b", settings={"model": "openai/clip-vit-base-patch32"},
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path),
    )  # fmt: skip
    assert ended.returncode == 3
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("sluice: ")
    assert "openai/clip-vit-base-patch32" in line
    assert "SLUICE_MODEL=builtin" in line
    assert "HF_HOME" in line
