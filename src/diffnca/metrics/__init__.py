"""Distances between sets of images, measured on the features of a fixed network."""

from diffnca.metrics.distances import fid, kid, kid_error, kid_full
from diffnca.metrics.features import FeatureExtractor, efficientnet_lite0, extract
from diffnca.metrics.inception import InceptionFid, inception

__all__ = [
    "FeatureExtractor",
    "InceptionFid",
    "efficientnet_lite0",
    "extract",
    "fid",
    "inception",
    "kid",
    "kid_error",
    "kid_full",
]
