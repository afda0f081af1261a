"""The RQ side: takes jobs, heartbeats, ends them together with their verdicts, and shows how it is doing.

In: RQ queues. Out: ended jobs, metrics, health. Never a pixel, never a score.
"""
