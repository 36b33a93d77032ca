"""Writers: finished regions become files."""
