"""Find a network's tensors in whatever training scripts wrapped them in.

Files hold the same tensors plain, under `model`, `state_dict` or `params`, with
`module.` or `model.` before every name, with `_orig_mod.` in the middle, beside an
optimiser, a second time as the average of training's steps, or all of that at once.
None of these words is looked for: a network's own names are, at the end of others.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from models.artefacts.files import Shapes, misfits

StateDict = dict[str, Tensor]
_WRAPPERS = frozenset(
    # torch.compile, FSDP, activation checkpointing; DataParallel, also of a part.
    ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
)
_AVERAGE = re.compile(
    r"(?:^|[._])(?:ema|teacher|averaged|swa)(?:[._]|$)", re.IGNORECASE
)
"""What averages are called: EMA of timm, BasicSR, Lightning; the teacher of DINO."""
MAY_LACK = "mask_token"
"""timm's files have no such tensor, and depth does not read it."""


@dataclass(frozen=True)
class Wanted:
    """The tensors that a network needs."""

    shapes: Shapes
    """By its own names."""
    names: frozenset[str]
    """Those, and what others call them."""
    renamed: Callable[[StateDict], StateDict]
    """Others' names to its own."""

    def problems(self, state: StateDict) -> list[str]:
        """What keeps a state dict from being the network's, in words; [] if nothing."""
        needed = {
            name: shape
            for name, shape in self.shapes.items()
            if name in state or not name.endswith(MAY_LACK)
        }
        return misfits(needed, state)

    def matches(self, state: StateDict) -> int:
        """Number of the network's tensors that are there in their shape."""
        pairs = ((shape, state.get(name)) for name, shape in self.shapes.items())
        return sum(found is not None and found.shape == shape for shape, found in pairs)


@dataclass(frozen=True)
class Found:
    """The tensors of one network in a file."""

    where: str
    """Under which keys and before which names, in words."""
    state: StateDict

    @property
    def average(self) -> bool:
        """Whether it is the average of training's steps."""
        return bool(_AVERAGE.search(self.where))


def tensors_in(content: object, where: tuple[str, ...] = ()) -> Iterator[Found]:
    """Every mapping of names to tensors in a file's content, however deep."""
    if not isinstance(content, Mapping):
        return
    inside = {str(key): v for key, v in content.items() if isinstance(v, Tensor)}
    if inside:
        yield Found(".".join(where), inside)
    for key, value in content.items():
        yield from tensors_in(value, (*where, str(key)))


def best_fit(
    everything: Iterable[Found], wanted: Wanted
) -> tuple[Found | None, list[Found]]:
    """The network's tensors by its own names, and all that would do as well.

    Of several the average is taken, which is what its training meant to be used. Where
    nothing fits wholly, it is what fits best; None where not one name is known.
    """
    candidates = [
        Found(part.where, wanted.renamed(part.state))
        for found in everything
        for part in _parts(found, wanted.names)
    ]
    whole = [found for found in candidates if not wanted.problems(found.state)]
    best = max(
        whole or candidates,
        key=lambda found: (wanted.matches(found.state), found.average),
        default=None,
    )
    return best, whole


def _parts(found: Found, names: frozenset[str]) -> Iterator[Found]:
    """The tensors behind each prefix that stands before known names."""
    prefixes: dict[str, None] = {}
    for name in found.state:
        words = name.split(".")
        ends = (i for i in range(len(words)) if _own_name(words[i:], names) in names)
        if (first := next(ends, None)) is not None:
            prefixes["".join(f"{word}." for word in words[:first])] = None
    longest_first = sorted(prefixes, key=len, reverse=True)
    parts: dict[str, StateDict] = {prefix: {} for prefix in prefixes}
    for name, value in found.state.items():
        prefix = next((p for p in longest_first if name.startswith(p)), None)
        if prefix is not None:
            words = name.removeprefix(prefix).split(".")
            parts[prefix][_own_name(words, names)] = value
    for prefix, state in parts.items():
        where = ".".join(filter(None, (found.where, prefix.rstrip("."))))
        yield Found(where, state)


def _own_name(words: list[str], names: frozenset[str]) -> str:
    """A name without wrappers of parts in its middle, where that makes it a known one.

    Wrappers of the whole stand before it, beside what they count themselves.
    """
    name = ".".join(words)
    if words[0] in _WRAPPERS or name in names:
        return name
    inner = ".".join(word for word in words if word not in _WRAPPERS)
    return inner if inner in names else name
