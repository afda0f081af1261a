"""What is remembered of each judged image, so that policies can be judged again; `docs/ledger.md` says for how long.

`entry` (what an entry of the stream is) → `reader` (stream and files as arrays, `batch`); `archive` (of a
`group`) moves entries into Parquet `files` on a `shelf`, `forgetting` takes them out of both. Never an image, a score,
or torch.
"""
