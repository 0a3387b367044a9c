"""Depth of the sky, which has none: that of the farthest things in the picture.

The rule of Depth Anything 3, `model/da3.py: _process_mono_sky_estimation`. Theirs takes
the quantile over all pictures of a call, and of more than 100,000 pixels a random
sample; here it is each picture's own, of all its pixels, and the same at every call.
"""

import torch
from torch import Tensor

THRESHOLD = 0.3
"""Where the branch for the sky has at least this, there is sky."""
FAR = 0.99
"""Quantile of the depth of everything else."""
FEWEST = 10
"""Pictures with no more pixels than this of either are left as they are."""


def filled(depth: Tensor, sky: Tensor) -> Tensor:
    """Depth (B, 1, H, W) with the sky at the far end of the rest.

    Args:
        depth: (B, 1, H, W).
        sky: (B, 1, H, W), what the branch for the sky gives.
    """
    # No gradient through a quantile: it would be that of a single pixel.
    flat = depth.detach().flatten(1)
    ground = (sky < THRESHOLD).flatten(1)
    count = ground.sum(1, keepdim=True)
    ordered = torch.where(ground, flat, torch.inf).sort(1).values
    place = FAR * (count - 1).clamp(min=0).to(flat.dtype)
    below = ordered.gather(1, place.floor().long())
    above = ordered.gather(1, place.ceil().long())
    far = torch.lerp(below, above, place - place.floor())
    enough = (count > FEWEST) & ((~ground).sum(1, keepdim=True) > FEWEST)
    is_sky = (~ground & enough).view_as(depth)
    return torch.where(is_sky, far[:, :, None, None], depth)
