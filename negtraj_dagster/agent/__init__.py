"""The agent loop that collects rollouts and evaluates checkpoints, its clients and its tools."""
