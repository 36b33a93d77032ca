"""Models of this repository for torch.hub: `torch.hub.load("OWNER/NAME", "model", "pathology")`.

After this call `import diffnca` works too: `diffnca.generate(model, height=256, width=256)`.
"""

import sys
from pathlib import Path
from typing import Any

import torch

dependencies = ["torch", "numpy", "safetensors", "huggingface_hub", "filelock", "jaxtyping"]

sys.path.insert(0, str(Path(__file__).parent / "src"))


def model(name: str = "pathology", device: str | torch.device = "cpu") -> Any:
    """Return a trained model: a bundled one, a model file, a run's folder, or a hub id `owner/name`."""
    from diffnca.models.file import load

    return load(name, device)
