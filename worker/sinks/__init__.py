"""Where verdicts go; each sink is idempotent by job and knows nothing of the others.

In: verdicts, and a Redis pipeline when the push belongs to a transaction. Never an image, never a score.
"""
