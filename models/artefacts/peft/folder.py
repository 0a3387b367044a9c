"""The folder that PEFT keeps a LoRA or DoRA in: reading, checking and writing it.

`adapter_config.json` says which modules are adapted or stored whole, with ranks and
alphas; `adapter_model.safetensors` has their tensors under the names of the
`transformers` model. Source of the rules: PEFT 0.21, `tuners/lora/model.py`,
`tuners/tuners_utils.py: check_target_module_exists` and `utils/other.py`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from datamodules.files.whole import whole_folder, write_json
from models.adapters import AdapterError
from models.adapters.layers import AdaptedMatrix, adapted_class, shape_of
from models.artefacts.files import (
    KEY,
    misfits,
    read_json,
    read_tensors,
    save_tensors,
)
from models.artefacts.peft.naming import Naming
from models.artefacts.published.sources import repo_and_revision

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
BARE = ".lora_magnitude_vector"
"""So PEFT writes it, and transformers 5.23 fails to read it where PEFT is not asked."""
MAGNITUDE = f"{BARE}.weight"
"""So both read it."""
SPEC = "lava_depth_network"
"""Our note in the tensors' metadata: what network the adapter is for."""
HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("peft_type", "peft_version", "task_type", "megatron_core", "runtime_config"),
    *("qalora_group_size", "layers_pattern", "fan_in_fan_out", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
"""Entries that do not change what a loaded adapter computes."""
HARMLESS_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base's weights as they are."""
MERGE_IT = "merge it with PEFT (merge_and_unload) and load the merged model instead"
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class PeftOptions:
    """What is used of `adapter_config.json`, under PEFT's own names and defaults."""

    r: int = 8
    lora_alpha: float = 8
    rank_pattern: Mapping[str, int] | None = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] | None = field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    lora_dropout: float = 0.0
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    bias: str = "none"
    init_lora_weights: bool | str | None = True

    @classmethod
    def parse(cls, content: Mapping[str, object]) -> "PeftOptions":
        """Take what is used; refuse what would change the outcome."""
        if content.get("peft_type") != "LORA":
            raise AdapterError(
                f"its peft_type is {content.get('peft_type')}, not LORA; {MERGE_IT}"
            )
        used = {k: content[k] for k in cls.__dataclass_fields__ if k in content}
        options = cls(**used)  # type: ignore[arg-type]
        # PEFT gains variants with every release: what is set and unknown may be one.
        strange = [k for k in content if content[k] and k not in HARMLESS | set(used)]
        if options.bias != "none":
            strange.append("bias")
        if options.init_lora_weights not in HARMLESS_STARTS:
            strange.append("init_lora_weights")
        if strange:
            raise AdapterError(
                f"its {strange[0]} {content[strange[0]]!r} goes beyond LoRA and DoRA "
                f"on an unchanged base; {MERGE_IT}"
            )
        return options

    def rank(self, name: str) -> int:
        """Rank of the module called `name`."""
        return _by_pattern(self.rank_pattern, name, self.r)

    def scale(self, name: str) -> float:
        """The s of dW = s B A of the module called `name`."""
        rank = self.rank(name)
        alpha = _by_pattern(self.alpha_pattern, name, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def adapts(self, name: str) -> bool:
        """Whether the module called `name` has a LoRA."""
        chosen = _selected(self.target_modules, name)
        excluded = _selected(self.exclude_modules, name)
        return chosen and not excluded and not self.stores(name)

    def stores(self, name: str) -> bool:
        """Whether a module or tensor is stored whole, or lies in a module that is."""
        ends = tuple(self.modules_to_save or ())
        pieces = name.split(".")
        return any(
            ".".join(pieces[:depth]).endswith(ends)
            for depth in range(1, len(pieces) + 1)
        )


def read_folder(
    folder: Path, network: nn.Module, naming: Naming
) -> tuple[PeftOptions, dict[str, Tensor]]:
    """Options and tensors for `network`, complete; names without PEFT's prefix.

    Raises:
        AdapterError: If the folder cannot be read, holds more than LoRA or DoRA, or a
            tensor is missing, unexpected or misshapen.
    """
    if not all((folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)):
        raise AdapterError(
            f"there is no {CONFIG_FILE} with {WEIGHTS_FILE}; give a folder that PEFT "
            "wrote with safetensors (a pickled adapter_model.bin could run any code)"
        )
    content = read_json(folder / CONFIG_FILE, AdapterError)
    found, notes = read_tensors(folder / WEIGHTS_FILE, AdapterError)
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        new = name.removeprefix(PREFIX)
        tensors[f"{new}.weight" if new.endswith(BARE) else new] = tensor
    theirs, ours = json.loads(notes.get(SPEC, "{}")), naming.spec(network)
    for key in theirs.keys() & ours.keys():
        if theirs[key] != ours[key]:
            raise AdapterError(
                f"it was written for a network of {key} {theirs[key]!r}, not "
                f"{ours[key]!r}; load that one"
            )
    options = PeftOptions.parse(content)
    _check(_expected(options, network, tensors, naming), tensors)
    return options, tensors


def write_folder(
    folder: Path,
    options: PeftOptions,
    tensors: Mapping[str, Tensor],
    base_model: str | None,
    network: nn.Module,
    naming: Naming,
    record: Mapping[str, object] | None = None,
) -> None:
    """Write both files, whole or not at all.

    Args:
        folder: Made if missing.
        options: Of the adapters.
        tensors: By their names in `transformers`.
        base_model: For PEFT to find: a folder, or owner/name[@revision].
        network: Of which is noted what PEFT has no word for, in the file's metadata.
        naming: Its names in `transformers`.
        record: How we rebuild the network, likewise.
    """
    base, revision = base_model, None
    if base_model is not None and not Path(base_model).exists():
        base, revision = repo_and_revision(base_model)
    content = {
        "peft_type": "LORA",
        "task_type": naming.task_type,
        "auto_mapping": naming.base_class(network),
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        **asdict(options),
        **({"fan_in_fan_out": True} if naming.transposed(network) else {}),
    }
    spec = naming.spec(network)
    notes = {SPEC: json.dumps(spec)} if spec else {}
    if record is not None:
        notes[KEY] = json.dumps(record)
    with whole_folder(folder) as new:
        stored = {PREFIX + name: tensor for name, tensor in tensors.items()}
        save_tensors(new / WEIGHTS_FILE, stored, notes)
        write_json(new / CONFIG_FILE, content)


def base_of(config: Mapping[str, Any]) -> str | None:
    """The base that a configuration of PEFT names, as this project calls it."""
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str):
        return None
    return f"{base}@{revision}" if revision and not Path(base).exists() else base


def exactly(name: str) -> str:
    """A regular expression that only `name` matches, for PEFT and for us."""
    return f"^{re.escape(name)}$"


def most_common(values: Mapping[str, N]) -> tuple[N, dict[str, N]]:
    """The commonest value of named modules, and a pattern for each that differs."""
    usual = Counter(values.values()).most_common(1)[0][0]
    return usual, {exactly(n): value for n, value in values.items() if value != usual}


def _expected(
    options: PeftOptions,
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    naming: Naming,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes that the folder must hold, in its own version's names."""
    old = naming.are_old(tensors)
    shapes: dict[str, tuple[int, ...]] = {}
    for official, layer in network.named_modules():
        if not (type(layer) is nn.Conv2d or is_matrix(layer)):
            continue
        modules = naming.theirs(official, old=old)
        shape = shape_of(layer)
        out, rest = shape.out_full, (shape.in_size, *shape.kernel)
        rows, ones = out // len(modules), [1] * len(rest[1:])
        for module in filter(options.adapts, modules):
            rank = options.rank(module)
            shapes[module + DOWN] = (rank, *rest)
            shapes[module + UP] = (rows, rank, *ones)
            if options.use_dora:
                shapes[module + MAGNITUDE] = (1, rows, *ones) if ones else (rows,)
    for name, tensor in naming.to_theirs(network.state_dict(), old=old).items():
        if options.stores(name):
            shapes[name] = tuple(tensor.shape)
    return shapes


def _check(
    expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse missing, unexpected and misshapen tensors, of which PEFT only warns."""
    if problems := misfits(expected, tensors):
        raise AdapterError(
            f"its tensors do not fit its {CONFIG_FILE} and this network: "
            f"{'; '.join(problems)}; give files and network that belong together"
        )


def is_matrix(layer: nn.Module) -> bool:
    """Whether it is a linear layer, stored (out, in) or (in, out)."""
    made = adapted_class(type(layer))
    return made is not None and issubclass(made, AdaptedMatrix)


def _by_pattern(patterns: Mapping[str, N] | None, name: str, default: N) -> N:
    """PEFT's rule: the first pattern that matches the name, or its end after a dot."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _selected(chosen: str | list[str] | None, name: str) -> bool:
    """PEFT's rule: a string is a regular expression, a list holds names or endings."""
    if isinstance(chosen, str):
        return re.fullmatch(chosen, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in chosen or ())
