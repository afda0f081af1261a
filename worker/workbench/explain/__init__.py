"""Why a verdict says what it says: for the reviewer in numbers, for the uploader in words.

In: a verdict; with it, where they are at hand, the policy that judged, compiled, and the embeddings that it judged.
Out: an `Explanation`, or a `Statement`. Nothing is said that the verdict does not say or that cannot be computed again.
"""
