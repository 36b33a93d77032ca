"""How close the samples of a new texture model come to held-out crops, in about a minute."""

from dataclasses import dataclass
from pathlib import Path

from diffnca.data.images import ImageSet
from diffnca.evaluation.metrics.features import efficientnet_lite0
from diffnca.evaluation.samples import Samples
from diffnca.evaluation.scores import Score, score
from diffnca.evaluation.selections import Selection, count_crops, crops
from diffnca.progress import Report, unseen

CROP_PX = 64
NUM_CROPS, FEWEST_CROPS = 200, 8
NUM_SAMPLES, SAMPLE_PX = 6, 256


@dataclass(frozen=True)
class Closeness:
    """Distances from held-out crops: of samples, and of crops of the images that training saw."""

    samples: Score
    seen: Score


def closeness(model: Path, seen: ImageSet, held_out: ImageSet, report: Report = unseen) -> Closeness | None:
    """Return the distances for a model file or the folder of a run.

    `None` means that the held-out images hold fewer than 8 crops.

    Raises:
        ValueError: the feature network is not installed.
    """
    if len(held_out) == 0 or count_crops(held_out, CROP_PX) < FEWEST_CROPS:
        return None
    extractor = efficientnet_lite0()
    reference = random_crops(held_out)
    samples = Samples(str(model), SAMPLE_PX, SAMPLE_PX)
    pictures = list(samples.pictures(NUM_SAMPLES, report=report))
    report("comparing with held-out crops", 0.0, 0.0)
    made = crops(pictures, NUM_CROPS, CROP_PX, seed=0)
    return Closeness(score(made, reference, extractor), score(random_crops(seen), reference, extractor))


def random_crops(images: ImageSet) -> Selection:
    """Return crops at random places, where they can overlap: a strip holds few apart."""
    places = int(((images.sizes - CROP_PX + 1).clip(min=0)).prod(axis=1).sum())
    return crops(images, min(NUM_CROPS, places), CROP_PX, seed=0)
