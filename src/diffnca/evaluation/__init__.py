"""Scores of generated images against real ones, each with the protocol it was measured under."""
