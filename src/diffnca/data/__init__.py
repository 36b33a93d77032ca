"""Images to train on: from a folder, a zip file, image files or whole slides to batches of random crops."""

from diffnca.data.crops import crops
from diffnca.data.images import ImageSet, open_images

__all__ = ["ImageSet", "crops", "open_images"]
