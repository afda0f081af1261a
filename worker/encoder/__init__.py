"""Views or prompts → unit embeddings; the only room that knows torch and transformers.

In: uint8 RGB squares, or sentences. Out: `(n, dim)` float32, unit rows. Never a policy, never a threshold.
"""
