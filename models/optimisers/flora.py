"""Flora: every weight is trained, and momenta are kept in few directions."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from models.errors import CheckpointError, OptionError
from models.optimisers.adafactor import Member, View, move, normalised
from models.optimisers.checks import (
    MEANING,
    Group,
    check_gradient,
    check_group,
    check_same,
    named,
)
from models.optimisers.projections import Base, Projection

CHUNK = 2**18
"""Numbers updated together, or one tensor: what a step needs beside the state, and what
a processor's cache holds (2^20 takes a fifth longer)."""


class Flora(Optimizer):
    """Adafactor with a momentum that is projected onto random directions.

    Hao et al., arXiv 2402.03293, over Adafactor, arXiv 1804.04235. With u the gradient
    over the root of its factored second moment, and P (n, rank) on the smaller side,

        out = (1 - beta) u + beta P M
        every kappa steps: M <- P'^T P M, and P' takes the place of P
        M <- beta M + (1 - beta) P^T u
        W <- W - lr out / max(1, RMS(out) / clip)

    Matrices are (out, in), kernels (out, in x kernel). Vectors, and what has a side of
    at most `rank`, keep their momentum whole.

    Projections are not stored but follow from the seed, the period and the parameter's
    name: each period draws one matrix for every size n, and a parameter takes its
    rows, cyclically, from a place of its own onwards. So each has a projection of the
    right distribution and directions of its own, at no cost, whatever is frozen and in
    whatever order. Give named parameters (`network.named_parameters()`): of unnamed
    ones, those of one shape share theirs.

    Args:
        params: As for any optimiser of torch.
        lr: Rate.
        rank: Directions of a momentum.
        kappa: Steps of a period.
        beta: Decay of the momentum.
        projection: `orthonormal`: moving to P' never enlarges the momentum.
            `gaussian`: the paper's, of variance 1 / rank, which enlarges it by about
            sqrt(n / rank) each time, so that a small kappa diverges.
        seed: Of the projections.
        weight_decay: Decoupled: W <- (1 - lr weight_decay) W.
        clip: Largest root mean square of `out`.
        scale_parameter: Multiply the rate by the root mean square of W.
        relative_step: Take 1 / sqrt(t) for the rate where that is less.

    Raises:
        OptionError: If an option is out of range, a parameter complex or a shard.
    """

    state_options: ClassVar[tuple[str, ...]] = MEANING
    """Options without which a state cannot be read; checkpoints name them."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        rank: int = 16,
        kappa: int = 1000,
        beta: float = 0.9,
        projection: Projection = "orthonormal",
        seed: int = 0,
        weight_decay: float = 0.0,
        clip: float = 1.0,
        scale_parameter: bool = False,
        relative_step: bool = False,
    ) -> None:
        self._held: dict[object, Tensor] = {}
        moments = {"rank": rank, "kappa": kappa, "projection": projection, "seed": seed}
        step = {"lr": lr, "beta": beta, "weight_decay": weight_decay, "clip": clip}
        rate = {"scale_parameter": scale_parameter, "relative_step": relative_step}
        super().__init__(params, moments | step | rate)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._held = {}

    def add_param_group(self, param_group: Group) -> None:
        """Take more parameters, with options of their own if they have any.

        Raises:
            OptionError: As the optimiser itself.
        """
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except OptionError:
            del self.param_groups[-1]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: If its momenta mean something else here.
        """
        groups, saved_groups = self.param_groups, state_dict["param_groups"]
        if len(groups) != len(saved_groups):
            raise CheckpointError(
                f"the state has {len(saved_groups)} groups of parameters, not "
                f"{len(groups)}; give Flora those that it was made with"
            )
        for own, saved in zip(groups, saved_groups, strict=True):
            check_same(own, saved)
        super().load_state_dict(state_dict)
        # torch casts a state to its parameter's type, which may be bfloat16.
        for own, saved in zip(self.param_groups, saved_groups, strict=True):
            for parameter, key in zip(own["params"], saved["params"], strict=True):
                for name, value in state_dict["state"].get(key, {}).items():
                    if isinstance(value, Tensor):
                        self.state[parameter][name] = value.to(parameter.device)

    def projections(self) -> list[Tensor]:
        """What is held of them between steps; it is in no state dict."""
        return list(self._held.values())

    def state_bytes(self) -> int:
        """Bytes between steps: momenta, second moments, and projections."""
        states = [value for state in self.state.values() for value in state.values()]
        tensors = [value for value in states if isinstance(value, Tensor)]
        return sum(tensor.nbytes for tensor in (*tensors, *self.projections()))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update what has a gradient.

        Args:
            closure: Evaluates the network anew and returns the loss.

        Raises:
            OptionError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        needed: set[object] = set()
        for group in self.param_groups:
            for members in self._chunks(group):
                view = members[0].view
                updates = normalised(members)
                if view.rank:
                    needed |= self._add_momenta(group, members, updates)
                else:
                    momenta = [member.state["momentum"] for member in members]
                    torch._foreach_lerp_(momenta, updates, 1 - group["beta"])
                    updates = momenta
                move(group, members, updates)
        self._held = {key: self._held[key] for key in self._held if key in needed}
        return loss

    def _chunks(self, group: Group) -> Iterator[list[Member]]:
        """Members of one kind at the same step, about CHUNK numbers at a time."""
        kinds: dict[object, list[Member]] = {}
        for parameter, name in named(group):
            if parameter.grad is None or parameter.numel() == 0:
                continue
            check_gradient(parameter.grad, name)
            view = View.of(parameter.shape, group["rank"])
            state = self.state[parameter]
            if not state:
                dtype = torch.promote_types(parameter.dtype, torch.float32)
                state["step"] = 0
                for key, shape in view.shapes.items():
                    state[key] = parameter.new_zeros(shape, dtype=dtype)
            state["step"] += 1
            kind = (state["step"], view.cols > 0, view.rank)
            member = Member(parameter, name or str(view), view, state)
            kinds.setdefault(kind, []).append(member)
        for members in kinds.values():
            chunk, numbers = [members[0]], members[0].parameter.numel()
            for member in members[1:]:
                numbers += member.parameter.numel()
                if numbers > CHUNK:
                    yield chunk
                    chunk, numbers = [], member.parameter.numel()
                chunk.append(member)
            yield chunk

    def _add_momenta(
        self, group: Group, members: list[Member], updates: list[Tensor]
    ) -> set[object]:
        """Turn each u into `out`, in place; the bases that the next step needs."""
        beta, step = group["beta"], members[0].state["step"]
        before, now = (step - 1) // group["kappa"], step // group["kappa"]
        momenta = [member.state["momentum"] for member in members]
        added, needed = [], set()
        for member, update, momentum in zip(members, updates, momenta, strict=True):
            wide = update if member.view.rows < member.view.cols else update.mT
            old, key = self._projection(group, member, before)
            new = old
            if now != before:
                new, key = self._projection(group, member, now)
            needed.add(key)
            added.append(new.mT @ wide)
            wide.addmm_(old, momentum, beta=1 - beta, alpha=beta)
            if now != before:
                momentum.copy_((new.mT @ old) @ momentum)
        torch._foreach_lerp_(momenta, added, 1 - beta)
        return needed

    def _projection(
        self, group: Group, member: Member, period: int
    ) -> tuple[Tensor, object]:
        """P (n, rank), and the key under which its base is held."""
        side, like = min(member.view[:2]), member.state["momentum"]
        base = Base(group["projection"], group["seed"], period, side, group["rank"])
        key = (base, like.dtype, like.device)
        if key not in self._held:
            self._held[key] = base.draw().to(like)
        return self._held[key][base.rows_of(member.name)], key
