"""Numbers that compare sets of images: in the features of a fixed network, and as textures."""

from diffnca.evaluation.metrics.bootstrap import Difference, kid_difference
from diffnca.evaluation.metrics.cached import extract_cached
from diffnca.evaluation.metrics.distances import fid, kid, kid_error, kid_full
from diffnca.evaluation.metrics.features import FeatureExtractor, ModuleFeatures, efficientnet_lite0, extract
from diffnca.evaluation.metrics.inception import InceptionFid, inception
from diffnca.evaluation.metrics.manifolds import density_coverage, precision_recall
from diffnca.evaluation.metrics.memorisation import Memorisation, memorisation
from diffnca.evaluation.metrics.textures import colour_error, radial_spectrum, seam_ratio, spectrum_error_db

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
