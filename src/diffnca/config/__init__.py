"""Every choice of a model and its training, as frozen dataclasses; JSON; recipes."""
