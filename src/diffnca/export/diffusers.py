"""A pipeline of the library diffusers: any of its schedulers samples a model of this package.

A scheduler learns the noise levels, and what the network predicts, from the configuration of the model.
"""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.diffusion.denoiser import Denoiser, Prediction
from diffnca.models.file import load_denoiser
from diffnca.sampling.arguments import place_of, seeds_of
from diffnca.sampling.guidance import self_guided

try:
    from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, ImagePipelineOutput
except ImportError:
    raise ImportError("pipelines need the package diffusers: pip install 'diffnca[baselines]'") from None

PREDICTIONS: dict[Prediction, str] = {"noise": "epsilon", "clean": "sample", "velocity": "v_prediction"}
"""What a network predicts, as diffusers names it."""


def scheduler_for(denoiser: Denoiser, kind: Any = DPMSolverMultistepScheduler) -> Any:
    """Return a scheduler of this class with the noise levels of a model."""
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


class Pipeline(DiffusionPipeline):  # type: ignore[misc]
    """Makes images with a model of this package and a scheduler of diffusers."""

    def __init__(self, denoiser: Denoiser, scheduler: Any) -> None:
        """Join a model and a scheduler; the model guides itself as its configuration asks."""
        super().__init__()
        self.register_modules(denoiser=self_guided(denoiser), scheduler=scheduler)

    @classmethod
    def of(cls, model: str | Denoiser, kind: Any = DPMSolverMultistepScheduler) -> "Pipeline":
        """Return the pipeline of a model, or of its name, with a scheduler of this class."""
        denoiser = load_denoiser(model) if isinstance(model, str) else model
        return cls(denoiser, scheduler_for(denoiser, kind))

    @torch.no_grad()
    def __call__(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        seed: int | Sequence[int] = 0,
        batch: int | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> Any:
        """Return images, as `ImagePipelineOutput`.

        Args:
            height: rows in pixels; `None` is the side of the training crops.
            width: columns in pixels; `None` is the side of the training crops.
            num_inference_steps: steps of the scheduler.
            seed: of the first noise and of the cells that update, as for `diffnca.generate`.
            batch: number of images; `None` makes one image per seed.
            generator: draws the fresh noise of stochastic schedulers.
            output_type: "pil" for pictures, "pt" for a tensor b c h w in [-1, 1].
        """
        config, side = self.denoiser.config, self.denoiser.config.data.crop
        region = Canvas(height or side, width or side).whole
        noise, device = Noise(seeds_of(seed, batch)), torch.device(place_of(self.denoiser, None))
        self.scheduler.set_timesteps(num_inference_steps, device=device)
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
        t = x_t.new_full((len(x_t),), timestep / self.denoiser.schedule.num_diffusion_steps)
        region, planes = Canvas(*x_t.shape[-2:]).whole, self.denoiser.planes(x_t, None)
        output: Tensor = self.denoiser.network(x_t, t, region, noise.at(number), None, **planes)
        return output


def _pictures(images: Float[Tensor, "b c h w"]) -> list[Image.Image]:
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in to_uint8(images)]
