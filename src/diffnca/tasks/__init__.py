"""What a model can be asked for: images out of noise, and images that something is known of."""

from diffnca.tasks.denoisers import AroundDenoiser as AroundDenoiser
from diffnca.tasks.denoisers import HoldsDenoiser as HoldsDenoiser
from diffnca.tasks.denoisers import ImageDenoiser as ImageDenoiser
from diffnca.tasks.denoisers import check_canvas as check_canvas
from diffnca.tasks.denoisers import check_parts as check_parts
from diffnca.tasks.denoisers import walk_of as walk_of
from diffnca.tasks.generation import generate as generate
from diffnca.tasks.growth import canvases_of as canvases_of
from diffnca.tasks.growth import grown as grown
from diffnca.tasks.growth import planned as planned
from diffnca.tasks.guidance import Guided as Guided
from diffnca.tasks.guidance import guided as guided
from diffnca.tasks.guidance import ready as ready
from diffnca.tasks.inpainting import extend as extend
from diffnca.tasks.inpainting import inpaint as inpaint
from diffnca.tasks.starts import start_of as start_of
from diffnca.tasks.task import Options as Options
from diffnca.tasks.task import Task as Task
from diffnca.tasks.upscaling import upscale as upscale
from diffnca.tasks.variation import interpolate as interpolate
from diffnca.tasks.variation import vary as vary
