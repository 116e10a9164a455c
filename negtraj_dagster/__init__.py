"""negtraj_dagster: from raw agent rollouts to negative-aware fine-tuned checkpoints, as an incremental Dagster lineage."""

__version__ = "0.1.0"
