"""The weight of the log-gradient loss in training."""

import pytest
import torch

from datamodules.batch import DepthBatch
from models import DepthAnythingModule
from models.errors import OptionError
from models.losses import log_gradient, silog
from models.optimisation import Optimisation

SIZE = (28, 42)


def step(weights, **options) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss of a training step without an adapter, and the two losses by themselves."""
    learner = DepthAnythingModule(
        10.0,
        SIZE,
        size="tiny",
        weights=str(weights),
        adapter=None,
        optimisation=Optimisation(**options),
    )
    learner.log = lambda *_, **__: None
    learner.on_train_epoch_start()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, *SIZE, generator=generator)
    target = torch.rand(2, 1, *SIZE, generator=generator) * 8 + 1
    valid = torch.rand(target.shape, generator=generator) > 0.2
    batch = DepthBatch(
        image=image,
        depth=target,
        valid=valid,
        size=[SIZE] * 2,
        path=["a", "b"],
        skipped=[],
    )
    depth = learner(image)
    focus = learner.optimisation.variance_focus
    parts = silog(depth, target, valid, focus), log_gradient(depth, target, valid)
    return learner.training_step(batch, 0), *parts


def test_weight_zero__leaves_the_loss_as_it_was_to_the_last_bit(tiny_weights):
    loss, plain, _ = step(tiny_weights)
    assert torch.equal(loss, plain)
    assert torch.equal(loss, step(tiny_weights, gradient_weight=0.0)[0])


def test_weight__adds_that_many_times_the_loss(tiny_weights):
    loss, plain, gradient = step(tiny_weights, gradient_weight=0.5)
    assert gradient > 0.01
    torch.testing.assert_close(loss, plain + 0.5 * gradient, rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_weight__that_means_nothing_is_refused(weight):
    with pytest.raises(OptionError, match="gradient_weight"):
        Optimisation(gradient_weight=weight)
