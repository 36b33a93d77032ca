"""Neural cellular automata: the cell, its stages, and the networks made of them."""
