"""Two processes with other adapters each take the step of one with all examples."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.mixed_step import MixedStep
from tests.models.mixed.runs import assert_same, module

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
import torch
from datamodules.mixed import MixedDataModule
from tests.models.mixed.runs import data, fit, module, state

weights, devices, batch_size, accumulate, out = sys.argv[1:]
torch.manual_seed(0)
model = module(weights)
options = {{"strategy": "ddp"}} if int(devices) > 1 else {{}}
# Samples alternate, so that each of two processes has one adapter alone.
source = data({{"rooms": 1, "streets": 1}}, int(batch_size), n_train={n_train})
seen = []
model.on_train_batch_start = lambda batch, i: seen.append(set(batch["adapter"]))
fit(model, source, devices=int(devices), limit_val_batches={val},
    accumulate_grad_batches=int(accumulate), **options)
if model.trainer.is_global_zero:
    found = {{name: state(model, name) for name in ("rooms", "streets")}}
    found["router"] = model.router.state_dict()
    found["seen"] = [sorted(names) for names in seen]
    found["images"] = dict(model.images)
    torch.save(found, out)
"""


def run(tmp_path, weights, devices, batch_size, accumulate=1, n_train=8, val=1.0):
    script, out = tmp_path / f"run_{devices}.py", tmp_path / f"out_{devices}.pt"
    script.write_text(SCRIPT.format(n_train=n_train, val=val))
    given = [weights, devices, batch_size, accumulate, out]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *map(str, given)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def test_step__of_two_shares_is_that_of_the_whole_batch(tiny_weights):
    """The short form: what processes do with gradients, in one process."""
    model = module(tiny_weights).train()
    images = torch.randn(4, 3, 28, 42)
    names = ["rooms", "rooms", "rooms", "streets"]
    shares = [[0, 1, 2, 3]], [[0, 1], [2]]

    def gradients(shares):
        """Of batches [0, 1] in one process and [2], [3] in others, or of all in one."""
        steps, sums = [], []
        for batches in shares:
            model.zero_grad()
            step = MixedStep(model.bank, None)
            for batch in batches:
                own = [names[i] for i in batch]
                with model.bank.select(own):
                    depth = model(images[batch])
                    each, counts = {}, {}
                    for name in set(own):
                        rows = [i for i, other in enumerate(own) if other == name]
                        each[name] = depth[rows].square().mean()
                        counts[name] = len(rows)
                    total = step.add(each, counts, own, len(shares))
                    (total / len(shares[0])).backward()
            steps.append(step)
            sums.append([p.grad for _, p in model.trained_parameters()])
        for (_, parameter), *found in zip(
            model.trained_parameters(), *sums, strict=True
        ):
            parts = [g for g in found if g is not None]
            parameter.grad = sum(parts) / len(shares) if parts else None
        whole = [sum(s._counts.get(n, 0) for s in steps) for n in model.bank.names]
        strategy = SimpleNamespace(
            root_device="cpu", reduce=lambda mine, reduce_op: torch.tensor(whole)
        )
        steps[0].average(
            SimpleNamespace(
                world_size=len(shares),
                accumulate_grad_batches=len(shares[0]),
                strategy=strategy,
            )
        )
        return [p.grad for _, p in model.trained_parameters()]

    one = gradients([shares[0]])
    # Accumulated batches and processes, uneven ones.
    for others in ([shares[1], [[3], []]], [[[0, 1, 2]], [[3]]]):
        others = [[b for b in batches if b] for batches in others]
        for whole, own in zip(one, gradients(others), strict=True):
            assert (whole is None) == (own is None)
            if whole is not None:
                torch.testing.assert_close(own, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes__with_other_adapters_each_are_one(
    tmp_path, tiny_weights, accumulate
):
    one = run(tmp_path, tiny_weights, 1, 4, accumulate)
    two = run(tmp_path, tiny_weights, 2, 2, accumulate)
    assert all(names == ["rooms", "streets"] for names in one["seen"])
    assert all(names == ["rooms"] for names in two["seen"])
    assert one["images"] == two["images"]
    for name in ("rooms", "streets", "router"):
        # Float32, as in test_training.py: sums in another order.
        assert_same(two[name], one[name], rtol=2e-3, atol=2e-4)
