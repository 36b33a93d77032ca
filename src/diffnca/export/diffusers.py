"""A pipeline of the library diffusers: any of its schedulers samples a model of this package.

A scheduler learns the noise levels, and what the network predicts, from the configuration of the model.
This file is a custom pipeline of diffusers too. A folder that `Pipeline.save_pretrained` writes names it.
"""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.diffusion.denoiser import Denoiser, Prediction
from diffnca.files import replace_atomically
from diffnca.models.file import find_model, load_denoiser, read_card
from diffnca.models.hub import Pretrained
from diffnca.sampling.arguments import place_of, seeds_of
from diffnca.sampling.guidance import self_guided

try:
    from diffusers import (
        DDIMScheduler,
        DiffusionPipeline,
        DPMSolverMultistepScheduler,
        ImagePipelineOutput,
        ModelMixin,
    )
except ImportError:
    raise ImportError("pipelines need the package diffusers: pip install 'diffnca[baselines]'") from None

PREDICTIONS: dict[Prediction, str] = {"noise": "epsilon", "clean": "sample", "velocity": "v_prediction"}
"""What a network predicts, as diffusers names it."""

STEPS = 20
"""Steps of a scheduler by default."""

PIPELINE_FILE = "pipeline.py"
PIPELINE_TEXT = "from diffnca.export.diffusers import Pipeline as Pipeline\n"
"""What makes a folder a custom pipeline of diffusers."""


def scheduler_for(denoiser: Denoiser, kind: Any = None) -> Any:
    """Return a scheduler of this class with the noise levels of a model; `None` is the one that fits it."""
    if kind is None:
        is_student = denoiser.config.sampling.visited is not None
        kind = DDIMScheduler if is_student else DPMSolverMultistepScheduler
    kept = (1.0, *denoiser.schedule.alphas_cumprod)
    options = {
        "num_train_timesteps": denoiser.schedule.num_diffusion_steps,
        "trained_betas": [1.0 - after / before for before, after in itertools.pairwise(kept)],
        "prediction_type": PREDICTIONS[denoiser.prediction],
        "timestep_spacing": "trailing",
        "clip_sample": False,
    }
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in options.items() if name in known})


class Part(ModelMixin):  # type: ignore[misc]
    """A model with its card, as the part of a pipeline that diffusers moves, saves and loads.

    Attributes:
        denoiser: the model, which guides itself as its configuration asks.
    """

    def __init__(self, model: Denoiser, card: Mapping[str, Any] | None = None) -> None:
        """Take a model, and the facts on it."""
        super().__init__()
        self._kept, self.denoiser = Pretrained(model, card or {}), self_guided(model)

    @classmethod
    def from_pretrained(cls, name: str | Path, **_: Any) -> "Part":
        """Return a bundled model, a model file, or the model of a folder; it computes in float32."""
        path = find_model(name)
        return cls(load_denoiser(path), read_card(path))

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write the model and its page into a folder, as `diffnca.load` reads it."""
        self._kept.save_pretrained(folder)


class Pipeline(DiffusionPipeline):  # type: ignore[misc]
    """Makes images with a model of this package and a scheduler of diffusers."""

    def __init__(self, model: Part, scheduler: Any) -> None:
        """Join a model and a scheduler."""
        super().__init__()
        self.register_modules(model=model, scheduler=scheduler)

    @classmethod
    def of(cls, model: str | Denoiser, kind: Any = None) -> "Pipeline":
        """Return the pipeline of a model, or of its name, with a scheduler of this class.

        `None` takes DPMSolverMultistepScheduler, or DDIMScheduler for a student.
        """
        part = Part.from_pretrained(model) if isinstance(model, str) else Part(model)
        return cls(part, scheduler_for(part.denoiser, kind))

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write model, scheduler and `pipeline.py` into a folder.

        `DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)` reads it.
        """
        super().save_pretrained(folder, **options)
        with replace_atomically(Path(folder) / PIPELINE_FILE) as partial:
            partial.write_text(PIPELINE_TEXT, encoding="utf-8")

    @torch.no_grad()
    def __call__(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        seed: int | Sequence[int] = 0,
        batch: int | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> Any:
        """Return images, as `ImagePipelineOutput`.

        Args:
            height: rows in pixels; `None` is the side of the training crops.
            width: columns in pixels; `None` is the side of the training crops.
            num_inference_steps: steps of the scheduler; `None` is 20, or those of a student.
            seed: of the first noise and of the cells that update, as for `diffnca.generate`.
            batch: number of images; `None` makes one image per seed.
            generator: draws the fresh noise of stochastic schedulers.
            output_type: "pil" for pictures, "pt" for a tensor b c h w in [-1, 1].

        Raises:
            ValueError: the scheduler visits noise levels that a student does not know.
        """
        denoiser, config = self.model.denoiser, self.model.denoiser.config
        side = config.data.crop
        region = Canvas(height or side, width or side).whole
        noise, device = Noise(seeds_of(seed, batch)), torch.device(place_of(denoiser, None))
        visited = config.sampling.visited
        steps = num_inference_steps or (STEPS if visited is None else len(visited))
        self.scheduler.set_timesteps(steps, device=device)
        if visited is not None and (found := self.scheduler.timesteps.tolist()) != list(visited):
            raise ValueError(
                f"timesteps {found}: must be {list(visited)}, for which this model was distilled; take "
                f"DDIMScheduler and num_inference_steps={len(visited)}"
            )
        start = noise.normal(Stream.INITIAL, 0, region, config.drawn_channels).to(device)
        x, draws = start * self.scheduler.init_noise_sigma, {}
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            draws["generator"] = generator
        for number, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            seen = self.scheduler.scale_model_input(x, timestep)
            output = self._predict(seen, float(timestep), noise, number)
            x = self.scheduler.step(output, timestep, x, **draws).prev_sample
        images = x[:, : config.model.image_channels].clamp(-1.0, 1.0)
        return ImagePipelineOutput(images=images if output_type == "pt" else _pictures(images))

    def _predict(
        self, x_t: Float[Tensor, "b n h w"], timestep: float, noise: Noise, number: int
    ) -> Float[Tensor, "b n h w"]:
        """Return the output of the network; timesteps may lie between the steps of the schedule."""
        denoiser = self.model.denoiser
        t = x_t.new_full((len(x_t),), timestep / denoiser.schedule.num_diffusion_steps)
        region, planes = Canvas(*x_t.shape[-2:]).whole, denoiser.planes(x_t, None)
        output: Tensor = denoiser.network(x_t, t, region, noise.at(number), None, **planes)
        return output


def _pictures(images: Float[Tensor, "b c h w"]) -> list[Image.Image]:
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in to_uint8(images)]
