"""How margins become scores, and from which score on something happens: fitted to pictures that a person judged.

In: pooled logits, and labels where there are any. Out: a policy's numbers for one model, each with what stands behind
it. Never a file, never an image.
"""
