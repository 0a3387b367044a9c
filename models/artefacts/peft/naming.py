"""What the layers of a network are called in the model that PEFT sits on."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from models.artefacts.published import transformers_keys as keys

BASE_CLASS = {
    "base_model_class": "DepthAnythingForDepthEstimation",
    "parent_library": "transformers.models.depth_anything.modeling_depth_anything",
}


class Naming:
    """Of a network that is itself one of `transformers`: nothing has another name."""

    task_type: str | None = "CAUSAL_LM"

    def theirs(self, name: str, *, old: bool = False) -> tuple[str, ...]:
        """A layer's name there, or those of the parts of a fused one.

        Args:
            name: Here.
            old: Give the names of `transformers` 4.
        """
        return (name,)

    def ours(self, name: str) -> tuple[str, str]:
        """The name here, and which part of a fused layer it is."""
        return name, ""

    def parts(self, layer: str) -> tuple[str, ...]:
        """Those that a fused layer has there."""
        return ()

    def to_theirs(
        self, state: Mapping[str, Tensor], *, old: bool = False
    ) -> dict[str, Tensor]:
        """Tensors by their names there."""
        return dict(state)

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse."""
        return dict(state)

    def are_old(self, names: Iterable[str]) -> bool:
        """Whether any of the names is one that only version 4 uses."""
        return False

    def new_beside(self, network: nn.Module, part: Any) -> tuple[str, ...]:
        """Prefixes of what may have been new when training began."""
        return ()

    def spec(self, network: nn.Module) -> dict[str, Any]:
        """What PEFT cannot say of the network, noted in the file's metadata."""
        return {}

    def base_class(self, network: nn.Module) -> dict[str, str]:
        """The class there."""
        kind = type(network)
        return {"base_model_class": kind.__name__, "parent_library": kind.__module__}

    def transposed(self, network: nn.Module) -> bool:
        """Whether matrices are stored (in, out), as GPT-2's are."""
        return any(type(m).__name__.endswith("Conv1D") for m in network.modules())


class DepthNaming(Naming):
    """Of Depth Anything, whose official names are other ones than `transformers`'."""

    task_type = None

    def theirs(self, name: str, *, old: bool = False) -> tuple[str, ...]:
        return keys.transformers_names(name, old=old)

    def ours(self, name: str) -> tuple[str, str]:
        return keys.official_name(name)

    def parts(self, layer: str) -> tuple[str, ...]:
        return keys.parts_of(layer)

    def to_theirs(
        self, state: Mapping[str, Tensor], *, old: bool = False
    ) -> dict[str, Tensor]:
        return keys.to_transformers(state, old=old)

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return keys.from_transformers(state)

    def are_old(self, names: Iterable[str]) -> bool:
        return keys.are_old(names)

    def new_beside(self, network: Any, part: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = network.new_beside(part)
        return found

    def spec(self, network: Any) -> dict[str, Any]:
        return asdict(network.spec)

    def base_class(self, network: nn.Module) -> dict[str, str]:
        return BASE_CLASS

    def transposed(self, network: nn.Module) -> bool:
        return False


PLAIN, DEPTH = Naming(), DepthNaming()
