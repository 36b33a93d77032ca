"""A page in the browser for this machine alone: make, draw, edit and train."""
