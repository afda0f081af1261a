"""Fit the byte-pair tokenizer on the captions.

In: phrases. Out: a transformers `CLIPTokenizer` with a context of 32 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

#: Size of the vocabulary, special tokens included.
VOCABULARY_SIZE = 6000
#: Longest text, in tokens; callers truncate here because the tokenizer says so.
CONTEXT_TOKENS = 32

_START, _END = "<|startoftext|>", "<|endoftext|>"


def fit_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """Fit a CLIP tokenizer on texts.

    Args:
        texts: Captions as they are trained on.

    Returns:
        A tokenizer whose `model_max_length` is `CONTEXT_TOKENS`.
    """
    trainer = BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[_START, _END],
        initial_alphabet=ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend = CLIPTokenizer().backend_tokenizer
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=CONTEXT_TOKENS)
