"""Judging any model: metrics, intervals, comparisons, verdicts, reports."""
