"""Where we are, what a pixel is, and every random number at sampling."""
