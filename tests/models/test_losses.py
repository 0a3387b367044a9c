import numpy as np
import pytest
import torch

from models.losses import log_gradient, silog


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


def by_loops(depth, target, valid):
    """The log-gradient loss, pixel by pixel in float64."""
    loss = 0.0
    r = np.log(depth) - np.log(target)
    for step in (1, 2, 4, 8):
        steps = []
        for image, known in zip(r[:, 0], valid[:, 0], strict=True):
            image, known = image[::step, ::step], known[::step, ::step]
            rows, cols = image.shape
            for i in range(rows):
                for j in range(cols):
                    for k, m in ((i + 1, j), (i, j + 1)):
                        if k < rows and m < cols and known[i, j] and known[k, m]:
                            steps.append(abs(image[i, j] - image[k, m]))
        loss += np.mean(steps) if steps else 0.0
    return loss


def larger_example():
    depth, target = (torch.rand(2, 1, 19, 23) * 9 + 0.5 for _ in range(2))
    return depth.requires_grad_(), target, torch.rand(depth.shape) > 0.3


def test_log_gradient__equals_loops_over_pixels():
    depth, target, valid = larger_example()
    given = depth.detach().double().numpy(), target.double().numpy(), valid.numpy()
    loss = log_gradient(depth, target, valid)
    assert loss.item() == pytest.approx(by_loops(*given), rel=1e-5)


def test_log_gradient__ignores_scale_and_vanishes_at_the_truth():
    depth, target, valid = larger_example()
    one, two = (log_gradient(depth * k, target, valid) for k in (1, 3))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert log_gradient(2 * target, target, valid) < 1e-5


def test_log_gradient__what_is_not_valid_has_no_influence():
    depth, target, valid = larger_example()
    clean = log_gradient(depth, target, valid)
    dirty = torch.where(valid, target, torch.nan)
    wild = torch.where(valid, depth, torch.inf)
    loss = log_gradient(wild, dirty, valid)
    loss.backward()
    assert torch.equal(loss, clean)
    assert depth.grad.isfinite().all()
    assert not depth.grad[~valid].any()


def test_log_gradient__without_neighbours_is_zero_with_zero_gradient():
    depth, target, valid = larger_example()
    alone = torch.zeros_like(valid)
    alone[..., 0, 0] = alone[..., 3, 5] = True
    loss = log_gradient(depth, target, alone)
    loss.backward()
    assert loss == 0
    assert not depth.grad.any()
