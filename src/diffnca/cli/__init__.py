"""The commands of the command line, each a dataclass: its fields are the flags, its text is the help."""
