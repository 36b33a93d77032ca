"""Under pytest the shapes and types in the annotations are checked at every call."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; so do the commands that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

install_import_hook("diffnca", "beartype.beartype")
