"""Bytes that a training step has alive, counted storage by storage.

Under `FakeTensorMode` nothing is computed or allocated, so that the step of a network
that no machine here holds can be counted: every tensor that the operations of forward,
loss, backward and optimiser make, from when it is made until nobody refers to it. What
is not counted: the workspace inside an operation, and an allocator's fragments.
"""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import (
    TorchDispatchMode,
)
from torch.utils._pytree import tree_leaves

MIB = 2**20


class Alive(TorchDispatchMode):
    """Counts bytes of storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self.see(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        return found

    def see(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.most = max(self.most, self.now)

    def forget(self, nbytes: int) -> None:
        self.now -= nbytes
