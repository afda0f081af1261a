"""Sluice: content moderation as a stream, scored zero-shot with CLIP against policies in plain words.

A job's way, top to bottom: `client` enqueues → `runtime` (RQ) → `jobs.moderate` → `app` (settings to
objects) → `pipeline`: `intake` (fetch, decode) → `encoder` (embed) → `scoring` → `verdict` (decide) →
`sinks` (push). `policy` is what is judged by, `records` what crosses Redis, `bench` measures; rings point inwards.
"""

__version__ = "0.1.0"
