"""Images larger than memory: tiles in any order, on many workers, with restarts, to the same pixels."""
