"""What a training step of a language model costs, beside PEFT's.

    python -m benchmarks.language_step --rounds 12

A random Llama (4 layers, 256 tokens, float32), its q, k, v, up and down adapted at
rank 16. A step: gradients to None, forward with the loss, backward. Each contestant has
a copy over the same frozen weights and runs once a round, in a random order; times are
those of the processor, of one thread.

Columns: ms, the median over the rounds; speed, the median over the rounds of PEFT's
time in that round by one's own, of the same method (Lava: of LoRA); held MiB, what
autograd holds between forward and backward, less parameters.
"""

import argparse
import copy
import random
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.rivals import CONTESTANTS
from benchmarks.step_runner import held_storages
from benchmarks.stopwatch import machine
from models.networks.causal import targets_of

TWINS = {"lora": "peft-lora", "lava": "peft-lora", "dora": "peft-dora"}
MIB = 2**20


def llama(hidden: int, layers: int) -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
    )
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    model: nn.Module = auto.from_config(config).train()
    return model


def forward_of(network: nn.Module, ids: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        loss: Tensor = network(ids, labels=ids, use_cache=False).loss
        return loss

    return forward


def made(name: str, base: nn.Module, layers: list[str], rank: int) -> nn.Module:
    """A contestant on the base's own frozen weights, away from its start."""
    base.requires_grad_(False)
    network = copy.deepcopy(base, {id(p): p for p in base.parameters()})
    (contestant,) = (each for each in CONTESTANTS if each.name == name)
    for parameter in contestant.attach(network, layers, rank):
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


def held_mib(network: nn.Module, forward: Callable[[], Tensor]) -> float:
    held = held_storages(forward)
    for own in [*network.parameters(), *network.buffers()]:
        held.pop(own.untyped_storage().data_ptr(), None)
    return sum(held.values()) / MIB


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.language_step")
    for name, value in (("hidden", 512), ("layers", 4), ("tokens", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12, help="beside 2 dropped")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for key, told in machine("peft", "transformers", on_cuda=False).items():
        print(f"{key}: {told}")
    base = llama(options.hidden, options.layers)
    wanted = re.compile("|".join(targets_of(base)))
    names = [name for name, _ in base.named_modules() if wanted.search(name)]
    ids = torch.randint(1024, (1, options.tokens))
    networks = {
        name: made(name, base, names, options.rank)
        for name in ("frozen", "lora", "lava", "dora", "peft-lora", "peft-dora")
    }
    # The floor goes backward as far as the others: to the first layer's input.
    frozen: Any = networks["frozen"]
    embeddings = frozen.get_input_embeddings()
    embeddings.weight = nn.Parameter(embeddings.weight.detach().clone())
    forwards = {name: forward_of(net, ids) for name, net in networks.items()}
    held = {
        name: held_mib(networks[name], forward) for name, forward in forwards.items()
    }
    times = measured(networks, forwards, options.rounds)
    print(f"{len(names)} adapted layers")
    print(f"{'':10}{'ms':>9}{'x frozen':>10}{'speed':>8}{'held MiB':>10}{'by PEFT':>9}")
    for name, own in times.items():
        twin = TWINS.get(name, name)
        speed = statistics.median(b / a for a, b in zip(own, times[twin], strict=True))
        floor = statistics.median(
            a / b for a, b in zip(own, times["frozen"], strict=True)
        )
        print(
            f"{name:10}{1e3 * statistics.median(own):9.1f}{floor:10.3f}{speed:8.3f}"
            f"{held[name]:10.1f}{held[name] / held[twin]:9.3f}"
        )


def measured(
    networks: dict[str, nn.Module],
    forwards: dict[str, Callable[[], Tensor]],
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds of the processor per step and round."""
    order, shuffler = list(networks), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in order}
    for number in range(rounds + 2):
        shuffler.shuffle(order)
        for name in order:
            networks[name].zero_grad(set_to_none=True)
            start = time.process_time()
            torch.autograd.backward(forwards[name]())
            if number >= 2:
                times[name].append(time.process_time() - start)
    return times


if __name__ == "__main__":
    main()
