"""Asks SQL files about rollouts: what they may see, what their answers must be, and where these are kept."""
