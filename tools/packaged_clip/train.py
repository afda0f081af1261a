"""Train the packaged CLIP from rendered drawings: `python -m tools.packaged_clip.train --help`.

In: the stores of `data.py` and the text packages. Out: `checkpoint.pt` (resumable) and, at the end and after
every save, a plain `CLIPModel` with its processor in `--out`/export.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tools.packaged_clip.augment import Augmenter
from tools.packaged_clip.batches import BATCH_CONCEPTS, Batch, BatchSource, trained_concepts
from tools.packaged_clip.captions import Captions
from tools.packaged_clip.export import export
from tools.packaged_clip.model import (
    IMAGE_PIXELS,
    PATCH_PIXELS,
    WIDTH,
    build_model,
    embed_images,
    embed_texts,
    start_from_data,
)
from tools.packaged_clip.muon import Muon
from tools.packaged_clip.objective import total_loss
from tools.packaged_clip.tokens import fit_tokenizer

#: Peak learning rates.
MUON_RATE, ADAMW_RATE = 5e-3, 1.5e-3
#: Share of the time before the peak, and share after which no patch is dropped any more.
WARM_UP, WHOLE_IMAGES_FROM = 0.02, 0.88
#: Patches that are looked at until then.
KEPT_PATCHES = (IMAGE_PIXELS // PATCH_PIXELS) ** 2 // 2
#: Largest factor from cosine to logit.
MAX_SCALE = 100.0
#: The two threads that share a batch.
THREADS = 2

console = Console(width=140)


def learning_rate_factor(done: float) -> float:
    """Warm up, then fall along a cosine to 0.

    Args:
        done: Share of the training's time that has passed, in [0, 1].
    """
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


class Trainer:
    """A model, its optimisers and the two threads that each take half of a batch."""

    def __init__(self, source: BatchSource, captions: Captions, tokenizer: Any, seed: int) -> None:
        torch.manual_seed(seed)
        self.source, self.tokenizer = source, tokenizer
        self.model = build_model(tokenizer).train()
        self.proxies = torch.nn.Parameter(torch.randn(len(captions.concepts), WIDTH) / WIDTH**0.5)
        self._augmenters = [Augmenter(seed * THREADS + i) for i in range(THREADS)]
        self._pool = ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,))
        layers = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embedding" not in n]
        chosen = {id(p) for p in layers}
        rest = [p for p in self.model.parameters() if id(p) not in chosen] + [self.proxies]
        self._muon = Muon(layers)
        self._adamw = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.1},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step_count, self.elapsed_seconds = 0, 0.0
        self._start(seed)

    def _start(self, seed: int) -> None:
        rows = torch.randperm(len(self.source.drawings), generator=torch.Generator().manual_seed(seed))[:768]
        flips = torch.ones(len(rows), dtype=torch.bool)
        start_from_data(self.model, Augmenter(seed)(self.source.drawings[rows], self.source.monochrome[rows], flips))

    def _together(self, work: Callable[[int], Any]) -> list[Any]:
        return list(self._pool.map(work, range(THREADS)))

    def step(self, done: float) -> float:
        """Take one step.

        Args:
            done: Share of the training's time that has passed.

        Returns:
            The loss.
        """
        batch = self.source.draw()
        images, texts = zip(*self._together(lambda i: self._forward(batch, i, done)), strict=True)
        leaves = [torch.cat(part).detach().requires_grad_() for part in (images, texts)]
        loss = self._loss(batch, *leaves)
        loss.backward()
        towers = [p for p in self.model.parameters() if p is not self.model.logit_scale]
        cuts = [leaf.grad.split([len(h) for h in part]) for leaf, part in zip(leaves, (images, texts), strict=True)]

        def backward(half: int) -> tuple[Tensor, ...]:
            outputs = (images[half], texts[half])
            return torch.autograd.grad(outputs, towers, (cuts[0][half], cuts[1][half]))

        for parameter, *parts in zip(towers, *self._together(backward), strict=True):
            parameter.grad = parts[0].add_(parts[1])
        self._update(learning_rate_factor(done))
        return loss.item()

    def _forward(self, batch: Batch, half: int, done: float) -> tuple[Tensor, Tensor]:
        part = self._half(len(batch.concepts), half)
        images = self._augmenters[half](batch.drawings[part], batch.monochrome[part], batch.may_flip[part])
        kept = None
        if done < WHOLE_IMAGES_FROM:
            patches = (IMAGE_PIXELS // PATCH_PIXELS) ** 2
            kept = torch.rand(len(images), patches).argsort(1)[:, :KEPT_PATCHES]
        texts = batch.token_ids[self._half(len(batch.token_ids), half)]
        with torch.autocast("cpu", torch.bfloat16):
            return embed_images(self.model, images, kept), embed_texts(self.model, texts)

    @staticmethod
    def _half(count: int, half: int) -> slice:
        return slice(count * half // THREADS, count * (half + 1) // THREADS)

    def _loss(self, batch: Batch, images: Tensor, texts: Tensor) -> Tensor:
        proxies = torch.nn.functional.normalize(self.proxies, dim=1)
        scale = self.model.logit_scale.exp()
        return total_loss(images, texts, proxies, scale, batch.concepts, batch.fits, self.source.emoji_count)

    def _update(self, factor: float) -> None:
        torch.nn.utils.clip_grad_norm_([*self.model.parameters(), self.proxies], 1.0)
        for group in self._adamw.param_groups:
            group["lr"] = ADAMW_RATE * factor
        halves = self._muon.halves()
        self._together(lambda i: self._muon.step(halves[i], MUON_RATE * factor))
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(MAX_SCALE))

    def save(self, out: Path) -> None:
        """Write the resumable state and an export."""
        state = {
            "model": self.model.state_dict(),
            "proxies": self.proxies.data,
            "muon": self._muon.state_dict(),
            "adamw": self._adamw.state_dict(),
            "step_count": self.step_count,
            "elapsed_seconds": self.elapsed_seconds,
            "random": self.source.random.bit_generator.state,
        }
        torch.save(state, out / "checkpoint.new")
        (out / "checkpoint.new").replace(out / "checkpoint.pt")
        export(self.model, self.tokenizer, out / "export")

    def resume(self, out: Path) -> None:
        """Take up the state that `save` wrote."""
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.proxies.data.copy_(state["proxies"])
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])
        self.step_count, self.elapsed_seconds = state["step_count"], state["elapsed_seconds"]
        self.source.random.bit_generator.state = state["random"]


def run(trainer: Trainer, minutes: float, save_minutes: float, out: Path) -> None:
    """Train until the minutes are over, saving now and then."""
    started = time.monotonic() - trainer.elapsed_seconds
    saved = time.monotonic()
    mean_loss = math.nan
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        loss = trainer.step(done)
        trainer.step_count += 1
        trainer.elapsed_seconds = time.monotonic() - started
        mean_loss = loss if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
        if trainer.step_count % 50 == 0:
            samples = trainer.step_count * BATCH_CONCEPTS
            console.print(
                f"{trainer.elapsed_seconds:6.0f} s  step {trainer.step_count:6d}  {samples:9,d} samples  "
                f"{samples / trainer.elapsed_seconds:5.0f}/s  loss {mean_loss:.3f}  "
                f"scale {trainer.model.logit_scale.exp().item():.1f}"
            )
        if time.monotonic() - saved > 60 * save_minutes:
            trainer.save(out)
            saved = time.monotonic()
    trainer.save(out)


def main() -> None:
    """Read the arguments and train; see the module docstring for what is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="a node_modules directory")
    parser.add_argument("--data", type=Path, required=True, help="the directory that data.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoint.pt and export/ are written")
    parser.add_argument("--minutes", type=float, default=75, help="wall time; the learning rate ends at 0")
    parser.add_argument("--save-minutes", type=float, default=5, help="wall time between saves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from checkpoint.pt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    captions = Captions(arguments.packages, trained_concepts(arguments.data))
    tokenizer = fit_tokenizer(captions.sample(60_000, arguments.seed))
    source = BatchSource(arguments.data, captions, tokenizer, arguments.seed)
    trainer = Trainer(source, captions, tokenizer, arguments.seed)
    if arguments.resume:
        trainer.resume(arguments.out)
    run(trainer, arguments.minutes, arguments.save_minutes, arguments.out)


if __name__ == "__main__":
    main()
