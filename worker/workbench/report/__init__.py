"""Reports as single HTML files: nothing is fetched when one is opened, and no script runs.

In: what the bench found. Out: one page, its charts drawn into it. Never a number of its own.
"""
