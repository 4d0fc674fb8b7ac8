"""Fairness: from a day's sums to few, ranked players, each with its reasons (docs/fairness.md).

`rules` says what the rules and their thresholds are, `scores` measures, `suspicion` corrects for many tests and combines.
What does not belong here: what a reviewer decides (`warehouse/cases.py`), and SQL (`models/`).
"""
