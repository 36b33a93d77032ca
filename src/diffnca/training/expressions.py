"""What training looks at faces with: frozen features of the network of expressions of face-api.

No evaluation looks with it. It has the layers of the landmarks, which judge; its weights are its own.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.models.classifiers import with_weights
from diffnca.models.face_networks import SIDE_PX, expression_network, face_of, normalised
from diffnca.models.tensorflow import read_eight_bits

EXPRESSIONS = "face_expression"
EXPRESSIONS_FILE = Path(__file__).with_name(f"{EXPRESSIONS}.safetensors")
EXPRESSIONS_SHA256 = "15a69fecd36bb8224e5dab6239cdd4959d3b60b6fcf012c72312104d9630cbb9"

SCALES = (3.2, 6.0)
"""Root mean squares of the features of real faces at each level."""


class FaceExpressions:
    """The last two blocks of the network, which see eyes and mouth, divided by `SCALES`.

    Faces must be aligned as in CelebA, in square images of three channels. Gradients reach the image, and no
    weight of the network.
    """

    widths: tuple[int, ...] = (128, 256)

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    def levels(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the features of images in [-1, 1]: `b 128 14 14` and `b 256 7 7`.

        Raises:
            ValueError: the images are not square.
        """
        with torch.autocast(images.device.type, enabled=False):
            x, found = normalised(face_of(127.5 * (images.float() + 1.0)), SIDE_PX), []
            for block in list(self.network.children())[:4]:
                x = block(x)
                found.append(x)
            return [level / scale for level, scale in zip(found[2:], SCALES, strict=True)]

    def to(self, device: torch.device) -> "FaceExpressions":
        """Return the network on a device."""
        self.network.to(device)
        return self


def face_expressions() -> FaceExpressions:
    """Load the network of expressions from the package."""
    state, _ = read_eight_bits(EXPRESSIONS_FILE, EXPRESSIONS_SHA256, "install diffnca again")
    return FaceExpressions(with_weights(expression_network, state))
