"""What happens to images in the wild: seven named corruptions, each at severities 1 to 5.

The idea is ImageNet-C's (Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261); kinds
and strengths are ours, from hardly seen to worse than a camera at work should give. They act on
images of the size that a model sees, so that JPEG's blocks and noise's grain are of that size.

What is drawn for an image (noise, place of a crop, colours of a background) depends on the seed,
the kind and the image's name alone: one image is the same for every model, in any batch, and its
severities differ in strength only. Global random state is neither read nor changed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from adnlib.background import background
from adnlib.errors import InputError
from adnlib.settings import check_names

SEVERITIES = (1, 2, 3, 4, 5)
"""0 is the untouched image."""
RULES = 1
"""Goes up whenever a corruption is changed, so that what was kept is made anew."""

_Change = Callable[[torch.Tensor, float, np.random.Generator], torch.Tensor]


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption."""

    title: str
    parameter: str
    """What `values` are."""
    values: tuple[float, ...]
    """For each of `SEVERITIES`."""
    change: _Change
    """uint8 (3, S, S), a value and draws to uint8 (3, S, S)."""

    def of(self, severity: int) -> float:
        """The value at one of `SEVERITIES`."""
        return self.values[SEVERITIES.index(severity)]


def corrupt(
    images: torch.Tensor, names: Sequence[str], kind: str, severity: int, seed: int = 0
) -> torch.Tensor:
    """Images under one corruption.

    Args:
        images: uint8 (N, 3, S, S), on the CPU.
        names: (N,) what each image is called, such as its path in the data set.
        kind: one of `CORRUPTIONS`.
        severity: 0, which changes nothing, or one of `SEVERITIES`.
        seed: of all draws.

    Returns:
        uint8 (N, 3, S, S).

    Raises:
        InputError: kind or severity is unknown.
    """
    check_names([kind], CORRUPTIONS, "corruption")
    if severity == 0:
        return images.clone()
    check_severities([severity])
    change, value = CORRUPTIONS[kind].change, CORRUPTIONS[kind].of(severity)
    draws = [np.random.default_rng([seed, *f"{kind}/{name}".encode()]) for name in names]
    changed = [change(image, value, draw) for image, draw in zip(images, draws, strict=True)]
    return torch.stack(changed)


def check_severities(severities: Iterable[int]) -> None:
    """Raise InputError for the first that is none of `SEVERITIES`."""
    for severity in severities:
        if severity not in SEVERITIES:
            raise InputError(
                f"severity is {severity}: choose of {', '.join(map(str, SEVERITIES))}."
            )


def _blur(image: torch.Tensor, share: float, random: np.random.Generator) -> torch.Tensor:
    """Gaussian, reflected at the border; first along x, then along y, which is faster than both."""
    sigma = share * image.shape[-1]
    taps = 2 * math.ceil(3 * sigma) + 1
    along_x = F.gaussian_blur(image.float(), [taps, 1], [sigma, sigma])
    return _rounded(F.gaussian_blur(along_x, [1, taps], [sigma, sigma]))


def _noise(image: torch.Tensor, sigma: float, random: np.random.Generator) -> torch.Tensor:
    """Gaussian, of each pixel and channel by itself; torchvision's draws from the global state."""
    noise = torch.from_numpy(random.standard_normal(image.shape, dtype=np.float32))
    return _rounded(image + 255 * sigma * noise)


def _jpeg(image: torch.Tensor, quality: float, random: np.random.Generator) -> torch.Tensor:
    """Written and read by PIL; torchvision is giving its own JPEG up (deprecated in 0.29)."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=int(quality))
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).contiguous()


def _brightness(image: torch.Tensor, factor: float, random: np.random.Generator) -> torch.Tensor:
    return F.adjust_brightness(image, factor)


def _crop(image: torch.Tensor, share: float, random: np.random.Generator) -> torch.Tensor:
    """A square somewhere in the image, enlarged: the camera nearer, and aimed elsewhere.

    A defect may be cut off; then nothing anomalous is left in the image.
    """
    side = image.shape[-1]
    kept = round(share * side)
    top, left = (random.random(2) * (side - kept + 1)).astype(int).tolist()
    return F.resized_crop(image, top, left, kept, kept, [side, side])


def _background(image: torch.Tensor, weight: float, random: np.random.Generator) -> torch.Tensor:
    """What is taken for background, blended with a gradient between two colours."""
    colours = torch.from_numpy(random.uniform(0, 255, (2, 3, 1, 1))).float()
    angle = random.uniform(0, 2 * math.pi)
    line = torch.linspace(-1, 1, image.shape[-1])
    along = math.cos(angle) * line + math.sin(angle) * line[:, None]
    gradient = torch.lerp(colours[0], colours[1], 0.5 + along / (2 * math.sqrt(2)))
    return _rounded(torch.lerp(image.float(), gradient, weight * background(image)))


def _rounded(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


CORRUPTIONS = {
    "blur": Corruption("blur", "sigma / side", (0.002, 0.004, 0.007, 0.011, 0.016), _blur),
    "noise": Corruption("noise", "sigma / white", (0.02, 0.04, 0.07, 0.12, 0.2), _noise),
    "jpeg": Corruption("JPEG", "quality", (80, 50, 30, 15, 7), _jpeg),
    "darker": Corruption("darker", "factor", (0.85, 0.7, 0.55, 0.4, 0.25), _brightness),
    "brighter": Corruption("brighter", "factor", (1.15, 1.3, 1.5, 1.75, 2.0), _brightness),
    "crop": Corruption("crop", "side kept", (0.95, 0.9, 0.83, 0.75, 0.65), _crop),
    "background": Corruption("background", "weight", (0.1, 0.2, 0.35, 0.55, 0.8), _background),
}
"""Every corruption by name, in the order of tables and figures."""
