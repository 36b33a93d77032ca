"""Finding, building, loading, writing and converting models."""
