"""Measures: every figure is a ratio of things that were run in turn, in one run, on one machine.

In: a Redis of its own, or a model. Out: rows of figures, each with the limit that it is compared with. Never a verdict.
"""
