import numpy as np
import pytest
import torch

from models.losses import silog


def example():
    depth = torch.rand(2, 1, 4, 5, dtype=torch.float64) * 9 + 0.5
    target = torch.rand(2, 1, 4, 5, dtype=torch.float64) * 9 + 0.5
    return depth.float().requires_grad_(), target.float(), torch.rand(2, 1, 4, 5) > 0.3


@pytest.mark.parametrize("focus", [0.0, 0.5, 0.85])
def test_silog__equals_the_formula(focus):
    depth, target, valid = example()
    e = np.log(depth.detach().numpy()[valid]) - np.log(target.numpy()[valid])
    expected = np.sqrt((e**2).mean() - focus * e.mean() ** 2)
    assert silog(depth, target, valid, focus).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_silog__full_focus_ignores_scale():
    depth, target, valid = example()
    one, two = (silog(depth * k, target, valid, 1.0) for k in (1, 3))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_silog__zero_residual_has_finite_gradient():
    depth, _, valid = example()
    silog(depth, depth.detach(), valid, 0.85).backward()
    assert depth.grad.isfinite().all()


def test_silog__all_invalid_gives_zero_and_zero_gradient():
    depth, target, valid = example()
    loss = silog(depth, target, torch.zeros_like(valid), 0.85)
    loss.backward()
    assert loss == 0
    assert not depth.grad.any()


def test_silog__what_is_not_valid_has_no_influence():
    depth, target, valid = example()
    dirty = torch.where(valid, target, torch.nan)
    clean = silog(depth, target, valid, 0.85)
    loss = silog(depth, dirty, valid, 0.85)
    loss.backward()
    assert torch.equal(loss, clean)
    assert depth.grad.isfinite().all()
    assert not depth.grad[~valid].any()


def test_silog__half_precision_input_is_computed_in_float32():
    depth, target, valid = example()
    assert silog(depth.bfloat16(), target, valid, 0.85).dtype == torch.float32
