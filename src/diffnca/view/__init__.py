"""A viewer in the browser for images of any size."""
