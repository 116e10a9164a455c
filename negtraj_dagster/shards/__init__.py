"""Shards: conditioned conversations as tokens with loss weights, proved row by row before anything is trained on them."""
