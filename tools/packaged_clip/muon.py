"""Muon: momentum whose update is orthogonalised, for weight matrices.

In: parameters and their gradients. Out: updated parameters.
Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of matrices towards 1 by a quintic Newton-Schulz iteration.

    The iteration runs in bfloat16, as in its source: it need not be exact, and it is several times faster.

    Args:
        matrices: float32, shape (n, rows, columns) with rows <= columns.
        steps: Number of iterations.
    """
    a, b, c = _COEFFICIENTS
    x = (matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Muon:
    """Muon with Nesterov momentum and decoupled weight decay.

    Matrices of one shape are updated together. The state is what `state_dict` returns, so a run can resume.
    """

    def __init__(
        self, matrices: Sequence[torch.nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        self._momentum, self._weight_decay = momentum, weight_decay
        self._matrices = list(matrices)
        self._velocity = [torch.zeros_like(m) for m in matrices]
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, matrix in enumerate(matrices):
            by_shape[min(matrix.shape), max(matrix.shape)].append(index)
        self._groups = list(by_shape.values())

    def state_dict(self) -> list[Tensor]:
        """Return the momentum of every matrix, in order."""
        return self._velocity

    def load_state_dict(self, velocity: Sequence[Tensor]) -> None:
        """Take up the momentum that `state_dict` returned."""
        for mine, saved in zip(self._velocity, velocity, strict=True):
            mine.copy_(saved)

    def halves(self) -> list[list[list[int]]]:
        """Split the groups into two lists of equal work, for two threads."""
        cut = [(g[: len(g) // 2], g[len(g) // 2 :]) for g in self._groups]
        return [[g for g, _ in cut if g], [g for _, g in cut if g]]

    @torch.no_grad()
    def step(self, groups: Sequence[Sequence[int]], learning_rate: float) -> None:
        """Update the matrices of some groups.

        Args:
            groups: Lists of indices; the matrices of one list have one shape up to transposition.
            learning_rate: Size of the step for a square matrix.
        """
        for group in groups:
            updates = []
            for index in group:
                gradient, velocity = self._matrices[index].grad, self._velocity[index]
                velocity.lerp_(gradient, 1 - self._momentum)
                update = gradient.lerp(velocity, self._momentum)
                updates.append(update if update.shape[0] <= update.shape[1] else update.mT)
            for index, update in zip(group, orthogonalise(torch.stack(updates)), strict=True):
                matrix = self._matrices[index]
                matrix.mul_(1 - learning_rate * self._weight_decay)
                oriented = update if matrix.shape[0] <= matrix.shape[1] else update.mT
                matrix.add_(oriented, alpha=-learning_rate * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5)
