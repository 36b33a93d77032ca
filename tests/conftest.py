"""Under pytest the shapes and types in the annotations are checked at every call."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

UNCHECKED = {
    "__init__",
    "__main__",
    "cli",
    "__pycache__",
}  # tyro fills the commands of `cli` with placeholders

# the workers of a parallel run share the cores, and so do the commands that they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402  it reads the number of threads when it is imported

# the GPU engine without a GPU; Triton asks for this when it is imported
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

source = Path(__file__).parent.parent / "src" / "diffnca"
parts = sorted({path.stem for path in source.iterdir()} - UNCHECKED)
install_import_hook([f"diffnca.{part}" for part in parts], "beartype.beartype")
