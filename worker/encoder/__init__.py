"""Views or prompts → unit embeddings; the only room that knows torch and transformers.

In: uint8 RGB squares, or sentences. Out: `(n, dim)` float32, unit rows. Never a policy, never a threshold.
"""

import os

# Read when torch loads its OpenMP. Threads that wait for each other sleep instead of spinning: the cores belong to the
# threads that decode, and to other processes, too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
