"""What all denoisers share that wrap another denoiser."""

from operator import attrgetter

from torch import Tensor

from diffnca.diffusion.denoiser import ImageDenoiser, Query


class Around:
    """A denoiser that wraps `denoiser` and passes on all members that it does not replace."""

    denoiser: ImageDenoiser

    image_channels = property(attrgetter("denoiser.image_channels"))
    schedule = property(attrgetter("denoiser.schedule"))
    config = property(attrgetter("denoiser.config"))
    radius = property(attrgetter("denoiser.radius"))
    has_context = property(attrgetter("denoiser.has_context"))

    def context(self, query: Query) -> Tensor | None:
        """Return the context of the canvas."""
        return self.denoiser.context(query)
