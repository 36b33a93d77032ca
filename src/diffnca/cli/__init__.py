"""The commands of the command line. Each is a dataclass: fields are flags, the docstring is the help."""
