"""Find, build, load, write and convert models."""
