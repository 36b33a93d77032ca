"""The speed of a model on this machine, beside the speed of its matrix products alone."""
