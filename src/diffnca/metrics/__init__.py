"""Numbers that compare sets of images: in the features of a fixed network, and as textures."""

from diffnca.metrics.bootstrap import Difference, kid_difference
from diffnca.metrics.cached import extract_cached
from diffnca.metrics.distances import fid, kid, kid_error, kid_full
from diffnca.metrics.features import FeatureExtractor, ModuleFeatures, efficientnet_lite0, extract
from diffnca.metrics.inception import InceptionFid, inception
from diffnca.metrics.manifolds import density_coverage, precision_recall
from diffnca.metrics.memorisation import Memorisation, memorisation
from diffnca.metrics.textures import colour_error, radial_spectrum, seam_ratio, spectrum_error_db

__all__ = [
    "Difference",
    "FeatureExtractor",
    "InceptionFid",
    "Memorisation",
    "ModuleFeatures",
    "colour_error",
    "density_coverage",
    "efficientnet_lite0",
    "extract",
    "extract_cached",
    "fid",
    "inception",
    "kid",
    "kid_difference",
    "kid_error",
    "kid_full",
    "memorisation",
    "precision_recall",
    "radial_spectrum",
    "seam_ratio",
    "spectrum_error_db",
]
