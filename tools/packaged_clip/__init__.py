"""Everything that makes the packaged CLIP checkpoint: data, training, export and evaluation.

In: npm packages with openly licensed drawings and their names. Out: `worker/encoder/builtin/`.
Never imported by `worker`.
"""
