"""Decoded images within a memory budget; the least recently used image leaves first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from diffnca.data.decoding import Pixels


class ImageCache:
    """A thread-safe map from an image to its pixels."""

    def __init__(self, budget_bytes: int) -> None:
        """Hold at most `budget_bytes` of pixels; 0 holds nothing."""
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._images: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Pixels | None:
        """Return the image, or `None` if it is not held."""
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
            return image

    def put(self, key: Hashable, image: Pixels) -> None:
        """Hold `image`, read-only, unless it alone exceeds the budget; drop others until all fit."""
        image.flags.writeable = False
        with self._lock:
            self._drop(key)
            if image.nbytes > self.budget_bytes:
                return
            while self.used_bytes + image.nbytes > self.budget_bytes:
                self._drop(next(iter(self._images)))
            self._images[key] = image
            self.used_bytes += image.nbytes

    def _drop(self, key: Hashable) -> None:
        image = self._images.pop(key, None)
        self.used_bytes -= 0 if image is None else image.nbytes
