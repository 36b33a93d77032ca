"""How fast a model runs on the machine at hand, next to the matrix products that it cannot do without."""
