"""Training: one loop, the moving average of the weights, checkpoints."""
