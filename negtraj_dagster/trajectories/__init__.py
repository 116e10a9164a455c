"""Trajectories: rollouts with labels, verdicts and scores; what may be trained on, and why not the rest."""
