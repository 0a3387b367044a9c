"""Which adapter a picture should have, by what the frozen encoder makes of it.

ZoeDepth-NK (Bhat et al., 2023, section 3.3) has a classifier choose one of two heads
for a whole batch; this one chooses for each picture. It is trained beside the adapters
and has no influence on them: its features are those of the base, without gradient.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.adapters import AdapterError
from models.adapters.opened import fingerprint
from models.artefacts.files import save_tensors
from models.artefacts.mixed import ROUTER, StoredRouter
from models.depth_bank import DepthBank
from models.errors import CheckpointError


class Choice(NamedTuple):
    """What a router says of one picture."""

    adapter: str
    confidence: float
    """Its probability, by a softmax over all adapters."""


class Router(nn.Module):
    """A linear layer on normalised pooled features.

    Args:
        names: Of the adapters, in the order of the layer's outputs.
        features: Numbers that the encoder makes of a picture.
        image_size: Input (rows, cols) that it is trained at, and chooses at.
        encoder_sha256: `fingerprint` of the encoder whose features it reads.
    """

    def __init__(
        self,
        names: Sequence[str],
        features: int,
        image_size: tuple[int, int],
        encoder_sha256: str,
    ) -> None:
        super().__init__()
        self.names, self.image_size = tuple(names), image_size
        self.encoder_sha256 = encoder_sha256
        self.linear = nn.Linear(features, len(self.names))
        # No adapter is preferred before the first step.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (B, adapters) of pooled features (B, D)."""
        logits: Tensor = self.linear(
            F.layer_norm(pooled.to(self.linear.weight.dtype), pooled.shape[1:])
        )
        return logits

    def loss(self, pooled: Tensor, names: Sequence[str]) -> Tensor:
        """Mean cross entropy of pooled features (B, D) whose adapters are known."""
        return F.cross_entropy(self(pooled), self.targets(names, pooled))

    def targets(self, names: Sequence[str], like: Tensor) -> Tensor:
        """Places (B,) of adapters among its own."""
        places = [self.names.index(name) for name in names]
        return torch.tensor(places, device=like.device)

    @torch.no_grad()
    def choices(self, pooled: Tensor) -> list[Choice]:
        """The adapter of each of pooled features (B, D), and how sure that is."""
        sure, places = self(pooled).softmax(1).max(1)
        return [
            Choice(self.names[place], confidence)
            for place, confidence in zip(places.tolist(), sure.tolist(), strict=True)
        ]

    def check(self, bank: DepthBank, source: str) -> None:
        """Refuse a bank that it does not choose for.

        Raises:
            AdapterError: If that lacks one of its adapters, or has another encoder.
        """
        if missing := [name for name in self.names if name not in bank.names]:
            raise AdapterError(
                f"{source} chooses among {', '.join(self.names)}, but there is no "
                f"adapter {', '.join(missing)} among {', '.join(bank.names)}; give the "
                "adapters that it was trained beside"
            )
        own = fingerprint(bank.network.encoder)
        if own != self.encoder_sha256:
            raise AdapterError(
                f"{source} reads an encoder with SHA-256 {self.encoder_sha256[:12]}"
                f"..., and the base's has {own[:12]}...; give the base that it was "
                "trained on"
            )

    def describe(self) -> dict[str, str]:
        """What its tensors do not say."""
        about = {
            "names": self.names,
            "image_size": self.image_size,
            "encoder_sha256": self.encoder_sha256,
        }
        return {ROUTER: json.dumps(about)}

    def save(self, path: Path) -> None:
        """Write it whole, as safetensors."""
        save_tensors(path, self.state_dict(), self.describe())


def pooled_features(bank: DepthBank, image: Tensor) -> Tensor:
    """What the base's encoder makes of images (B, 3, h, w): (B, D), no gradient."""
    with torch.no_grad(), bank.adapters.select(None):
        return bank.network.pooled(image).detach()


def new_router(bank: DepthBank, image_size: tuple[int, int]) -> Router:
    """A router over the adapters of a bank, before training."""
    patch_px = bank.patch_px
    like = next(bank.network.parameters())
    probe = torch.zeros(1, 3, 2 * patch_px, 2 * patch_px).to(like)
    features = pooled_features(bank, probe).shape[1]
    sha256 = fingerprint(bank.network.encoder)
    return Router(bank.names, features, image_size, sha256)


def router_of(stored: StoredRouter) -> Router:
    """A router from what is stored of it.

    Raises:
        CheckpointError: If that does not belong together.
    """
    try:
        about = json.loads(stored.notes[ROUTER])
        rows, cols = about["image_size"]
        names: list[str] = about["names"]
        features = stored.tensors["linear.weight"].shape[1]
        router = Router(names, features, (rows, cols), about["encoder_sha256"])
        router.load_state_dict(stored.tensors)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError):
        raise CheckpointError(
            f"{stored.source} is no router of this project, or damaged; export it again"
        ) from None
    return router
