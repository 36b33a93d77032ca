"""Pictures: from folders, zip files, image files or slides to batches of random crops."""

from diffnca.data.images import ImageSet, open_images
from diffnca.data.sources import Remark, summary

__all__ = ["ImageSet", "Remark", "open_images", "summary"]
