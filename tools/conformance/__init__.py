"""Runs RQ's own test suite against a worker class, beside the same run against RQ's own classes.

In: RQ's source distribution of the installed version, a dotted path. Out: a table, and an exit code: 1 where a test
that passes with RQ's classes does not pass with ours. Never a process that outlives it.
"""
