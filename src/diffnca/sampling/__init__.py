"""What a model can be asked for: images out of noise, and images that something is known of."""
