"""Fine-tuned checkpoints: the trainer (a child process on DeepSpeed ZeRO), its rows, and the verified export."""
