"""Training: one loop, the moving average of the weights, and checkpoints."""
