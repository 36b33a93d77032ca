"""The engine: how networks run fast and exactly on the machine at hand."""
