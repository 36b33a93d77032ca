"""Distances between sets of images, measured on the features of a fixed network."""

from diffnca.metrics.distances import fid, kid, kid_error, kid_full
from diffnca.metrics.features import FeatureExtractor, efficientnet_lite0, extract

__all__ = ["FeatureExtractor", "efficientnet_lite0", "extract", "fid", "kid", "kid_error", "kid_full"]
