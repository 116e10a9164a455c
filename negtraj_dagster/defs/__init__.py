"""Dagster wiring and nothing else: an asset body reads, calls one function of a stage, and returns metadata."""
