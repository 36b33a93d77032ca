"""What a model can make: new images, and images of which something is known."""
