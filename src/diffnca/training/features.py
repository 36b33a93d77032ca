"""What training looks with: frozen features of EfficientNet-Lite2, which no evaluation looks with.

A network that trains a model may not judge it, too [1]. The card of a model names the networks that it was
trained with.

[1] Kynkäänniemi et al., "The Role of ImageNet Classes in Fréchet Inception Distance", arXiv 2203.06026.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffnca.config.model import Config
from diffnca.models.classifiers import efficientnet_lite

FEATURES = "efficientnet_lite2"
EFFICIENTNET_LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"

SCALES = (12.0, 8.5, 6.5, 2.5)
"""Root mean squares of the features of photos at each level, where a place has 4, 8, 16 and 32 px."""

LEAST_PX = 96
"""Smaller images are enlarged: the deepest level then has 3x3 places."""

TRAINED_WITH = "trained_with"
"""Names, in the card of a model, the networks that looked at its images in training."""


@runtime_checkable
class Features(Protocol):
    """A frozen network: levels of features, fine to coarse, each half as wide as the level before it."""

    widths: tuple[int, ...]

    def levels(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the features of images in [-1, 1], 1 or 3 channels, at each level: `b width h w`."""

    def to(self, device: torch.device) -> "Features":
        """Return the network on a device."""


class EfficientNetLite2:
    """The last features of EfficientNet-Lite2 before each halving of the image, divided by `SCALES`.

    Gradients reach the image, and no weight of the network. All is computed in float32: a gradient in
    bfloat16 is a quarter off, and no faster.
    """

    widths: tuple[int, ...] = (24, 48, 120, 352)

    def __init__(self, network: Any) -> None:
        frozen = folded(network.eval().requires_grad_(False))
        self.network = frozen.to(memory_format=torch.channels_last)  # a tenth faster on a processor

    def levels(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the features of images in [-1, 1], 1 or 3 channels, at each level: `b width h w`."""
        with torch.autocast(images.device.type, enabled=False):
            x = enlarged(images.float()).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            return [level / scale for level, scale in zip(self._levels(x), SCALES, strict=True)]

    def _levels(self, x: Tensor) -> list[Tensor]:
        network, found = self.network, []
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks:
            if block._depthwise_conv.stride[0] == 2:
                found.append(x)
            x = block(x)
        return [*found[1:], x]  # without the level of 2 px

    def to(self, device: torch.device) -> "EfficientNetLite2":
        """Return the network on a device."""
        self.network.to(device)
        return self


def efficientnet_lite2() -> EfficientNetLite2:
    """Load EfficientNet-Lite2 from the packages of the extra `features`, without a download."""
    return EfficientNetLite2(efficientnet_lite(2, EFFICIENTNET_LITE2_SHA256, "features")[0])


def folded(network: Any) -> Any:
    """Return an EfficientNet in evaluation, each normalisation made a part of the convolution before it."""
    layers = [(network, "_conv_stem", "_bn0")]
    for block in network._blocks:
        first = [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        layers += [*first, (block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in layers:
        setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
    return network


def enlarged(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_2 w_2"]:
    """Return images whose shorter side is `LEAST_PX` at least: smaller images are enlarged to it."""
    height, width = images.shape[-2:]
    factor = LEAST_PX / min(height, width)
    if factor <= 1.0:
        return images
    return F.interpolate(images, (round(height * factor), round(width * factor)), mode="bilinear")


def check_colours(config: Config, option: str) -> None:
    """Refuse images that are neither gray nor of three colours; `option` is what wants the features."""
    channels = config.model.image_channels
    allowed = f"left out for a model of {channels} channels: the features are of 1 or 3"
    if channels not in (1, 3):
        raise ValueError(f"{option}: must be {allowed}")


def trained_with(*cards: Mapping[str, Any], by: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return what a card says of the networks that its model was trained with.

    They are those in the `cards` of the models before it, and those that its own training looks with: `by`.
    """
    names = {name for card in cards for name in card.get(TRAINED_WITH, ())} | set(by)
    return {TRAINED_WITH: sorted(names)} if names else {}
