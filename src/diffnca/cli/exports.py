"""The command that writes a model for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from diffnca.cli import console
from diffnca.errors import require
from diffnca.files import check_target
from diffnca.jobs.options import Seamless


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model for other programs, which then need neither Python nor torch.

    Attributes:
        models: bundled models, model files, runs' folders, or hub ids; one for ONNX.
        format: onnx, a file (.onnx) for onnxruntime and other runtimes; web, a folder with a page that runs
            students in a browser.
        out: the file to write, or the folder of the page.
        weights: type of the weights in the files: float32 (ONNX only), float16 with half of the bytes, int8
            with a quarter. By default float32 for ONNX, and float16 for a page.
        loop: ONNX: all steps of a student in one graph, from noise to image; without it, the graph is one
            estimate of the clean image.
        seamless: ONNX: axes along which the image continues at the opposite edge.
    """

    verb: ClassVar = "export"

    models: tyro.conf.Positional[tuple[str, ...]]
    format: Literal["onnx", "web"] = "onnx"
    out: Path
    weights: Literal["float32", "float16", "int8"] | None = None
    loop: bool = False
    seamless: Seamless = "none"

    def run(self) -> int:
        """Write the files; return the exit code."""
        match self.format:
            case "onnx":
                self._write_onnx()
            case "web":
                self._write_page()
        console.say(str(self.out))
        return 0

    def _write_onnx(self) -> None:
        from diffnca.export.onnx import Options, write_onnx
        from diffnca.jobs.request import SEAMLESS
        from diffnca.models.file import load_denoiser

        if len(self.models) != 1:
            raise ValueError(f"{len(self.models)} models: must be one for --format onnx; give its name")
        if self.out.suffix.lower() != ".onnx":
            raise ValueError(f"{self.out}: the name must end in .onnx; or give --format web, for a page")
        check_target(self.out, (".onnx",))
        options = Options(self.weights or "float32", self.loop, SEAMLESS[self.seamless])
        write_onnx(self.out, load_denoiser(self.models[0]), options, self.models[0])

    def _write_page(self) -> None:
        from diffnca.export.web import write_page

        for name, default in (("loop", False), ("seamless", "none")):
            value = getattr(self, name)
            require(value == default, name, value, "left out for --format web")
        if self.weights == "float32":
            raise ValueError("weights=float32: must be float16 or int8 for --format web")
        write_page(self.models, self.out, self.weights or "float16")
