"""Training: the loop, its updates, checkpoints, and the warm start."""
