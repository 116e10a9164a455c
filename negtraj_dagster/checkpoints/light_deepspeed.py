"""DeepSpeed as the trainer uses it, without MLflow, which its autotuner would load at every start, for a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """An import of this module fails meanwhile, unless it was imported before."""
    before = sys.modules.get(name)
    if before is None:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]


with _absent("mlflow"):
    import deepspeed
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

__all__ = ["LossScaler", "TorchCheckpointEngine", "ZeroStageEnum", "deepspeed", "fragment_address"]
