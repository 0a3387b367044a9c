"""Exchange adapters with people who do not have this project."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.adapters import (
    AdapterConfig,
    AdapterError,
    DoRA,
    LoRA,
    adapt,
    adapters,
    is_never_trained,
)
from models.adapters.base import Bottleneck, Chunks
from models.adapters.layers import AdaptedLayer, AdaptedMatrix
from models.adapters.methods.dora import DoRAAdapter
from models.adapters.methods.lora import LoRAAdapter
from models.artefacts.peft.folder import (
    DOWN,
    MAGNITUDE,
    MERGE_IT,
    UP,
    PeftOptions,
    exactly,
    most_common,
    read_folder,
    write_folder,
)
from models.artefacts.peft.naming import DEPTH, Naming
from models.artefacts.published.transformers_keys import PARTS
from models.artefacts.record import Record

INSTEAD = "export the merged network instead"


@torch.no_grad()
def save_peft(
    network: nn.Module,
    config: AdapterConfig,
    folder: Path,
    base_model: str | None,
    record: Record[Any] | None = None,
    naming: Naming = DEPTH,
) -> None:
    """Write the adapters as a folder for `peft.PeftModel.from_pretrained`.

    It goes onto `transformers.DepthAnythingForDepthEstimation` of version 5 with the
    same base weights. A metric network on a relative base also needs
    `depth_estimation_type="metric"` and `max_depth` there: PEFT cannot carry them.
    A fused layer (qkv, w12) becomes one module for each part, which is exact: they
    share `down`, and each row of `up` and of DoRA's magnitude belongs to one of them.
    Every layer trained in full, and the last convolution, which may have been started
    anew, go into PEFT's `modules_to_save`.

    Args:
        network: With its adapters in place.
        config: What they were built from.
        folder: Made if missing. Both files appear whole or not at all.
        base_model: Hub id or folder of the `transformers` base, for PEFT to find.
        record: Goes along in the tensors' metadata, so that we find the base again.
        naming: What layers are called in `transformers`.

    Raises:
        AdapterError: If PEFT has no form for an adapter; nothing is written then.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    dora = False
    for path, adapter in adapters(network):
        layer = path.removesuffix(".adapter")
        increment = _increment(layer, network.get_submodule(layer), config)
        down, up, scale = increment.dense_down(), increment.up, increment.scale
        ones = [1] * (down.ndim - 2)
        modules = naming.theirs(layer)
        rows = up.chunk(len(modules))
        magnitudes: tuple[Tensor, ...] = ()
        if isinstance(adapter, DoRAAdapter):
            dora = True
            magnitude = adapter.shape.all_rows(adapter.magnitude)
            magnitudes = magnitude.chunk(len(modules))
        parts = naming.parts(layer) or ("",)
        for i, (module, part) in enumerate(zip(modules, parts, strict=True)):
            if part in PARTS["qkv"] and part not in adapter.shape.chunks:
                continue
            ranks[module], alphas[module] = len(down), scale * len(down)
            tensors[module + DOWN] = down
            tensors[module + UP] = rows[i].reshape(*rows[i].shape, *ones)
            if magnitudes:
                shape = (1, -1, *ones) if ones else (-1,)
                tensors[module + MAGNITUDE] = magnitudes[i].reshape(shape)
    if not ranks:
        raise AdapterError(f"the network has no adapters; {INSTEAD}")

    part = "network" if record is None else record.base.part
    stored, whole = _stored(network, config, naming.new_beside(network, part), naming)
    for module in ranks:
        if f"{module}.".startswith(tuple(f"{outer}." for outer in whole)):
            raise AdapterError(
                f"{module} is adapted and has to be stored whole, which PEFT cannot "
                f"do to one module; {INSTEAD}"
            )
    rank, rank_pattern = most_common(ranks)
    alpha, alpha_pattern = most_common(alphas)
    options = PeftOptions(
        r=rank,
        lora_alpha=alpha,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        use_dora=dora,
        lora_dropout=config.dropout_p,
        target_modules=list(ranks),
        modules_to_save=whole,
    )
    described = None if record is None else record.to_dict()
    tensors |= stored
    write_folder(folder, options, tensors, base_model, network, naming, described)


def load_peft(network: nn.Module, folder: Path, naming: Naming = DEPTH) -> LoRA:
    """Give a plain network the adapter of a PEFT folder, in place.

    PEFT sees q, k and v as three modules. Their increments become one of our fused
    layer: each different `lora_A` keeps its ranks to itself, with zeros in the rows of
    the other parts, so the fused rank is their sum.

    Args:
        network: Without adapters, with the weights that the adapter was trained on;
            the folder does not say which those were.
        folder: With `adapter_config.json` and `adapter_model.safetensors`.
        naming: What layers are called in `transformers`.

    Returns:
        The LoRA or DoRA configuration that `adapt` builds the same adapters from.

    Raises:
        AdapterError: If the folder does not fit (`read_folder`). The network is
            unchanged then.
    """
    if any(True for _ in adapters(network)):
        raise AdapterError("the network has adapters already; merge them first")
    try:
        options, tensors = read_folder(folder, network, naming)
        return _load(network, options, tensors, naming)
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error}") from None


@torch.no_grad()
def _load(
    network: nn.Module,
    options: PeftOptions,
    tensors: Mapping[str, Tensor],
    naming: Naming,
) -> LoRA:
    # Our layer -> the part of it, "" for all of it -> PEFT's module.
    layers: dict[str, dict[str, str]] = {}
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(DOWN)
        layer, part = naming.ours(module)
        # PEFT also adapts and stores what nothing reads, if only its name matches.
        if is_never_trained(network, layer):
            continue
        if module != name:
            layers.setdefault(layer, {})[part] = module
        elif options.stores(name):
            stored[name] = tensor
    if not layers:
        raise AdapterError("it adapts no layer of this network")
    places = {layer: _places(group, tensors) for layer, group in layers.items()}
    names = {naming.ours(name)[0] for name in stored}
    own = {name: network.state_dict()[name] for name in names}
    # Where PEFT stored only q of a projection, k and v are the network's own.
    whole = naming.to_ours({**naming.to_theirs(own), **stored})
    config = _config(options, layers, places, {n.rpartition(".")[0] for n in names})
    try:
        adapt(network, config)
    except AdapterError as error:
        raise AdapterError(f"our layers cannot take it ({error}); {MERGE_IT}") from None
    network.load_state_dict(whole, strict=False)
    for layer, group in layers.items():
        adapter = network.get_submodule(f"{layer}.adapter")
        assert isinstance(adapter, LoRAAdapter)
        for part, module in group.items():
            place = places[layer][part]
            parts = naming.parts(layer) if part else ("",)
            rows = _rows(adapter.up, parts, part, config)
            up = tensors[module + UP].flatten(1)
            rows[:, place] = up.to(rows) * (options.scale(module) / adapter.scale)
            adapter.down[place] = tensors[module + DOWN].to(rows)
            if isinstance(adapter, DoRAAdapter):
                magnitude = tensors[module + MAGNITUDE].flatten()
                _rows(adapter.magnitude, parts, part, config).copy_(magnitude)
    return config


def _rows(whole: Tensor, parts: tuple[str, ...], part: str, config: LoRA) -> Tensor:
    """The rows (a view) of one part of a fused layer; all for part ""."""
    if parts == PARTS["qkv"]:
        parts = tuple(config.qkv)
    return whole.chunk(len(parts))[parts.index(part)]


def _config(
    options: PeftOptions,
    layers: Mapping[str, Mapping[str, str]],
    places: Mapping[str, Mapping[str, slice]],
    train_fully: set[str],
) -> LoRA:
    """The configuration under which `adapt` builds adapters of these ranks."""
    ranks = {n: max(place.stop for place in places[n].values()) for n in layers}
    modules = {layer: next(iter(group.values())) for layer, group in layers.items()}
    alphas = {n: options.scale(module) * ranks[n] for n, module in modules.items()}
    rank, rank_pattern = most_common(ranks)
    alpha, alpha_pattern = most_common(alphas)
    used = {part for group in layers.values() for part in group}
    qkv = "".join(part for part in PARTS["qkv"] if part in used) or "qkv"
    method = DoRA if options.use_dora else LoRA
    return method(
        rank=rank,
        alpha=alpha,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        qkv=cast(Chunks, qkv),
        dropout=options.lora_dropout,
        targets=[exactly(layer) for layer in layers],
        train_fully=[exactly(module) for module in sorted(train_fully)],
    )


def _places(
    group: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> dict[str, slice]:
    """Which ranks of a layer each of its parts takes; equal `lora_A`s share them."""
    places: dict[str, slice] = {}
    total = 0
    for part, module in group.items():
        down = tensors[module + DOWN]
        shared = (
            place
            for other, place in places.items()
            if torch.equal(tensors[group[other] + DOWN], down)
        )
        places[part] = next(shared, slice(total, total + len(down)))
        total = max(total, places[part].stop)
    return places


def _increment(name: str, layer: nn.Module, config: AdapterConfig) -> Bottleneck:
    """The increment of one layer, or why PEFT's LoRA would compute another one."""
    if not isinstance(layer, AdaptedLayer):
        reason = "is a bare parameter, and PEFT's LoRA sits on layers"
    elif (increment := layer.adapter.bottleneck()) is None:
        method = type(config).__name__
        reason = f"has an increment of {method}, which is not low-rank as PEFT's is"
    elif isinstance(layer, AdaptedMatrix):
        return increment
    elif not isinstance(layer, nn.Conv2d):
        kind = type(layer).__name__.removeprefix("Adapted")
        reason = f"is {kind}; only Linear and Conv2d have the same LoRA in PEFT"
    elif layer.groups > 1:
        reason = "is a grouped convolution, for which PEFT's LoRA is another increment"
    elif layer.dilation != (1, 1) or layer.padding_mode != "zeros":
        reason = "has a dilation or padding_mode, which PEFT's LoRA leaves out"
    else:
        return increment
    raise AdapterError(f"{name} {reason}; {INSTEAD}")


def _stored(
    network: nn.Module, config: AdapterConfig, new: tuple[str, ...], naming: Naming
) -> tuple[dict[str, Tensor], list[str]]:
    """What is not the base's: tensors and their modules, named as in transformers.

    PEFT stores modules, never a part of one: an untrained neighbour comes along.
    """
    state = {n: t for n, t in network.state_dict().items() if ".adapter." not in n}
    patterns = config.train_fully
    if patterns is None:
        patterns = getattr(network, "fully_trained", ())
    inside = tuple(
        f"{module}."
        for module, _ in network.named_modules()
        if module and any(re.search(pattern, module) for pattern in patterns)
    )
    trained = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith((*inside, *new)) and not is_never_trained(network, name)
    }
    owners = {name.rpartition(".")[0] for name in naming.to_theirs(trained)}
    modules = sorted(
        owner
        for owner in owners
        if not any(owner.startswith(f"{outer}.") for outer in owners)
    )
    within = tuple(f"{module}." for module in modules)
    named = naming.to_theirs(state).items()
    return {n: t for n, t in named if n.startswith(within)}, modules
