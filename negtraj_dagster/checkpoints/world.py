"""Who a trainer's process is among its ranks."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class World:
    """Who this process is among the ranks."""

    rank: int
    ranks: int
    device: torch.device

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        if self.ranks > 1:
            # without the device's number NCCL guesses it by the rank, and may hang
            torch.distributed.barrier(device_ids=None if self.device.index is None else [self.device.index])
