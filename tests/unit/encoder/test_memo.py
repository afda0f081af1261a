"""Sentences are embedded once per process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from worker.encoder.texts import Matrix, TextMemo


class Tower:
    """Embeds a sentence as its length, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, sentences: Sequence[str]) -> Matrix:
        self.asked.append(list(sentences))
        return np.array([[len(sentence), 1] for sentence in sentences], np.float32)


def test_a_sentence_is_embedded_once_and_rows_keep_their_order() -> None:
    tower = Tower()
    memo = TextMemo(tower)
    assert memo(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1]
    assert memo(["ccc", "bb"])[:, 0].tolist() == [3, 2]
    assert memo(["a"])[:, 0].tolist() == [1]
    assert tower.asked == [["a", "bb"], ["ccc"]]


def test_counts_are_taken_once() -> None:
    memo = TextMemo(Tower())
    memo(["a", "bb", "a"])
    memo(["a"])
    assert dict(memo.take_counts()) == {("text", "miss"): 2, ("text", "hit"): 2}
    assert memo.take_counts().total() == 0


def test_threads_that_ask_at_once_embed_a_sentence_once() -> None:
    tower = Tower()
    memo = TextMemo(tower)
    with ThreadPoolExecutor(8) as pool:
        assert all(rows[0, 0] == 3 for rows in pool.map(memo, [["abc"]] * 100))
    assert tower.asked == [["abc"]]
