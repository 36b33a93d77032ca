"""Decoded images within a budget."""

import numpy as np

from diffnca.data.images import ImageCache


def image_of(num_bytes: int) -> np.ndarray:
    return np.zeros((1, num_bytes, 1), dtype=np.uint8)


def test_the_budget_is_kept() -> None:
    cache = ImageCache(100)
    for key in range(20):
        cache.put(key, image_of(1 + key * 3))
        assert cache.used_bytes <= 100


def test_the_least_recently_used_image_leaves_first() -> None:
    cache = ImageCache(2)
    cache.put(0, image_of(1))
    cache.put(1, image_of(1))
    cache.get(0)
    cache.put(2, image_of(1))
    assert [cache.get(key) is not None for key in range(3)] == [True, False, True]


def test_an_image_beyond_the_whole_budget_displaces_nothing() -> None:
    cache = ImageCache(2)
    cache.put(0, image_of(1))
    cache.put(1, image_of(3))
    assert cache.get(0) is not None
    assert cache.get(1) is None


def test_an_image_put_twice_counts_once() -> None:
    cache = ImageCache(10)
    cache.put(0, image_of(4))
    cache.put(0, image_of(5))
    assert cache.used_bytes == 5
