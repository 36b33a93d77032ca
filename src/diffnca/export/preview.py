"""What a page shows at first: a small picture of what it will make, before it has made it."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image
from torch.nn import functional as F

from diffnca.canvas.pixels import to_uint8
from diffnca.config.networks import NCAConfig
from diffnca.models.file import load_denoiser
from diffnca.sampling.generate import generate
from diffnca.sampling.task import Options

TILE_PX, TONE_PX = 256, 128
"""Sides of the tile that a page makes without a graphics card, and of squares of one tone: as in page.js."""

PREVIEW_REDUCES, PREVIEW_QUALITY = 4, 70


def preview(path: Path) -> str:
    """Return a small picture of what the page makes of a model at first, as the address of an image.

    It shows the image of seed 0, or the tile of seed 0 that repeats, with a quarter of the sides.
    """
    denoiser = load_denoiser(path)
    model = denoiser.config.model
    assert isinstance(model, NCAConfig)
    if model.fourier is not None:
        side = model.fourier.trained_px
        image = generate(denoiser, height=side, width=side, seed=0, direct=True)
    else:
        side, tone = TILE_PX, (0.0,) * model.image_channels
        options: Options = {"boundary": ("circular", "circular"), "seed": 0}
        image = generate(denoiser, height=side, width=side, even_px=TONE_PX, tone=tone, **options)
    small, stored = F.avg_pool2d(image, PREVIEW_REDUCES).expand(-1, 3, -1, -1), BytesIO()
    Image.fromarray(to_uint8(small)[0]).save(stored, "JPEG", quality=PREVIEW_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(stored.getvalue()).decode()}"
