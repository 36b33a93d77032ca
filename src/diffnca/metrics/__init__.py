"""Distances between sets of images, measured on the features of a fixed network."""

from diffnca.metrics.cached import extract_cached
from diffnca.metrics.distances import fid, kid, kid_error, kid_full
from diffnca.metrics.features import FeatureExtractor, ModuleFeatures, efficientnet_lite0, extract
from diffnca.metrics.inception import InceptionFid, inception

__all__ = [
    "FeatureExtractor",
    "InceptionFid",
    "ModuleFeatures",
    "efficientnet_lite0",
    "extract",
    "extract_cached",
    "fid",
    "inception",
    "kid",
    "kid_error",
    "kid_full",
]
