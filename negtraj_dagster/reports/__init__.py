"""Evaluation reports: episodes of a checkpoint, their metrics, and comparisons between recipes."""
