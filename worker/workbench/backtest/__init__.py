"""The ledger under two versions of a policy: what would change if the second decided.

In: batches of the ledger, two compiled policies. Out: counts, and the strongest examples of what changes. Never more in
memory than a few batches, however long the ledger is.
"""
