"""Images larger than memory: any tiles, any order, many workers, restarts, and always equal pixels."""
