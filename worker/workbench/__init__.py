"""A policy author's bench: what the model makes of a policy's sentences, and of images that the author knows.

In: policies, an encoder, stored embeddings. Out: warnings, and whether each expectation holds. Never Redis, never an
image file: who looks at images is handed in.
"""
