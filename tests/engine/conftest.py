"""What the tests of both engines share: networks with random weights in every layer."""

import torch
from torch import nn

from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.build import build_network


def with_random_weights(model: NCAConfig) -> nn.Module:
    """Return a network whose layers are not at zero, where training begins."""
    torch.manual_seed(0)
    network = build_network(model)
    for parameter in network.parameters():
        inputs = parameter[0].numel()
        nn.init.normal_(parameter, std=inputs**-0.5 if parameter.dim() > 1 else 0.1)
    return network


def of_one_stage(**choices: object) -> nn.Module:
    """Return a network for gray images whose cells make these choices, with odd widths."""
    sizes = {"hidden": 18, "dilations": (2, 1), "embedding_width": 8, "embedding_channels": 5}
    cell = CellConfig(**(sizes | choices))  # type: ignore[arg-type]
    return with_random_weights(NCAConfig("diff_nca", image_channels=1, channels=7, cell=cell))
