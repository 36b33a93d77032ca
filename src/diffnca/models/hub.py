"""A model with its card, as a folder and as the Hugging Face hub hold it.

A folder holds `model.safetensors`, with configuration and card in its header, and the card as `README.md`.
The mixin of huggingface_hub would keep a second configuration beside the weights, and read pickled weights.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCardData

from diffnca.errors import one_line
from diffnca.files import replace_atomically
from diffnca.models.build import Generator
from diffnca.models.file import MODEL_FILE, check_card, find_model, load, read_card, write_model

PAGE = "README.md"
PAGE_TEXT = """---
{about}
---

# {name}

{description}.

| | |
|---|---|
{rows}

```python
import diffnca

model = diffnca.load("owner/name")  # this repository
image = diffnca.generate(model, height={side}, width={side}, seed=0)
```
"""
TASK = "unconditional-image-generation"
TAGS = ["diffusion", "neural-cellular-automata", "texture-synthesis"]
ROWS = {
    "data": "data",
    "licence": "licence",
    "images seen": "images_seen",
    "hours of training": "training_hours",
    "machine": "machine",
    "micrometres per pixel": "microns_per_px",
    "scores": "scores",
    "limits": "limits",
}
"""Rows of the page, and the facts of the card that they show."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained model and its card.

    Attributes:
        model: as `diffnca.load` returns it.
        card: facts on the model as JSON values, such as `description`, `data`, `licence`, `scores`, `limits`.
    """

    model: Generator
    card: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: torch.device | str = "cpu") -> "Pretrained":
        """Return a bundled model, a model file, the model of a folder or of the hub, with its card.

        Raises:
            ValueError: the model does not exist, its file is damaged, or the device is not available.
        """
        path = find_model(name)
        return cls(load(path, device), read_card(path))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write the model and its page into a folder, which is made if it is missing; return the folder.

        `dtype` is the type of the weights in the file; `None` keeps it.

        Raises:
            ValueError: a fact of the card is no JSON value, or a file stands where the folder would be.
        """
        check_card(self.card)
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"{folder}: is a file, or lies in one; give a folder") from None
        config, network = self.model.config, self.model.network
        write_model(folder / MODEL_FILE, network.state_dict(), config, self.card, dtype)
        with replace_atomically(folder / PAGE) as partial:
            partial.write_text(self.page(), encoding="utf-8")
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        dtype: torch.dtype | None = None,
        message: str = "Add a model of diffnca",
    ) -> str:
        """Upload the model and its page to the hub as `owner/name`; return the address of the commit.

        Raises:
            ValueError: the hub refuses, or is not within reach.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype)
            api = HfApi(token=token, library_name="diffnca")
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))
            except Exception as error:
                reason = f"the hub does not take it ({one_line(error)}); log in with `hf auth login`"
                raise ValueError(f"model {repo_id!r}: {reason}") from None

    def page(self) -> str:
        """Return the page of the model: facts for the hub, and the card in Markdown."""
        config = self.model.config
        card = {name: value for name, value in self.card.items() if value is not None}
        about = ModelCardData(library_name="diffnca", pipeline_tag=TASK, tags=TAGS)
        parameters = sum(parameter.numel() for parameter in self.model.network.parameters())
        facts = {"configuration": f"`{config.name}`, {parameters:,} parameters"}
        facts |= {title: _text(card[name]) for title, name in ROWS.items() if name in card}
        rows = "\n".join(f"| {title} | {text.replace('|', '&#124;')} |" for title, text in facts.items())
        return PAGE_TEXT.format(
            about=about.to_yaml(),
            name=config.name,
            description=card.get("description", "A denoising diffusion model of cells"),
            rows=rows,
            side=config.data.crop,
        )


def _text(value: Any) -> str:
    """Return a fact as the text of a cell of a table."""
    match value:
        case Mapping():
            return "; ".join(f"{name} {_text(each)}" for name, each in value.items())
        case list() | tuple():
            return "; ".join(map(_text, value))
    return " ".join(str(value).split())
