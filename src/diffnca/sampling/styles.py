"""Styles of new images: of a given picture, or drawn among those of the training images.

A style is constant over the canvas, so an image of any size has one stain.
"""

from jaxtyping import Float, Float64
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.data.styles import known_styles, standard
from diffnca.diffusion.walk import Planes
from diffnca.sampling.constants import Constants


def styled(planes: Planes | None, styles: Float[Tensor, "b s"] | None, config: Config) -> Planes | None:
    """Return given planes with those of styles after them; `planes` without styles, which stay unknown."""
    if styles is None:
        return planes
    own = len(config.layout.style_numbers(config.model.image_channels))
    count = config.layout.num_planes(config.model.image_channels) - own
    return Constants(standard(styles, config), planes, count)


def drawn_styles(config: Config, noise: Noise) -> Float64[Tensor, "b s"] | None:
    """Return the style of a training image for each seed; `None` for a model that knows no styles."""
    known = known_styles(config)
    if not len(known):
        return None
    drawn = Noise(noise.seeds).uniform(Stream.STYLE, 0, Canvas(1, 1).whole, 1)[:, 0, 0, 0]
    return known[(drawn * len(known)).long()]
