"""Random crops and flips of training images, made on the device where the images lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from threefactors._rng import counted


@dataclass(frozen=True)
class Augmentation:
    """Each image, at each use, shifted by −crop … crop pixels both ways, and mirrored left to right half of the time.

    What a shift brings in from outside is 0, the mean of the normalized training images. Partners of antithetic pairs
    are shifted apart. crop: pixels ≥ 0, less than the shorter side of the images; 0 shifts nothing.
    """

    crop: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.crop, bool) or not isinstance(self.crop, int) or self.crop < 0:
            raise ValueError(f"crop={self.crop!r} is not a whole number of pixels >= 0; use crop=4, or 0 for no shift")
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip={self.flip!r} is neither True nor False")


class Augmenter:
    """Augments the batches of a stack: every row by a number that its run's key, the step and its place count out.

        ``n = counted(key, step, row)``: flip = n mod 2, shifts down and right = digits of ⌊n/2⌋ in base 2 crop + 1

    image: shape of an example, (C, H, W), or (H, W) for gray. keys (R,) int64, on the device of the data. copies: so
    many neighboring rows are the same image (``SGD.label_draws``) and stay so. There is no state, and no value is
    looked at: it can be captured in a CUDA graph. Raises ValueError for data that are no images, or a crop too large.
    """

    def __init__(self, augmentation: Augmentation, image: Sequence[int], keys: Tensor, copies: int = 1) -> None:
        if len(image) not in (2, 3):
            raise ValueError(
                f"examples of shape {tuple(image)} are no images, so {augmentation} cannot be applied; "
                "use data of shape (N, H, W) or (N, C, H, W), or augmentation=None"
            )
        self.augmentation, self.keys, self.copies = augmentation, keys, copies
        self.image = (1, *image) if len(image) == 2 else tuple(image)
        if augmentation.crop >= min(self.image[1:]):
            raise ValueError(
                f"crop={augmentation.crop} can shift images of {self.image[1]} × {self.image[2]} pixels out of sight; "
                f"use crop < {min(self.image[1:])}"
            )

    def __call__(self, x: Tensor, runs: Tensor | None, steps: Tensor) -> Tensor:
        """Augmented rows (r, B, D) of x (r, B, D), at the given steps (r,) int64 of the ``runs`` (r,), or of all."""
        (r, B), (C, H, W), crop = x.shape[:2], self.image, self.augmentation.crop
        keys = self.keys if runs is None else self.keys[runs]
        places = torch.arange(B, device=x.device) // self.copies
        n = counted(keys.unsqueeze(1), steps.unsqueeze(1), places).view(-1, 1, 1)
        right = torch.arange(W, device=x.device)
        if self.augmentation.flip:
            right = torch.where((n & 1).bool(), W - 1 - right, right)
        shifts, choices = n >> 1, 2 * crop + 1
        down = torch.arange(H, device=x.device).unsqueeze(1) + shifts % choices
        pixels = down * (W + 2 * crop) + right + shifts // choices % choices  # (rows, H, W), the same for all channels
        padded = pad(x.reshape(r * B, C, H, W), (crop,) * 4).flatten(2)
        return padded.gather(2, pixels.view(-1, 1, H * W).expand(-1, C, -1)).view(r, B, -1)
