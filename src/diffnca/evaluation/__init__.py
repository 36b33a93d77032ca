"""Scores of generated images against real images, stored with the protocol of the measurement."""
