"""Adapters of a mixed run are trained as they would be alone."""

import itertools

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from models.depth_bank import DepthBank
from models.depth_module import AVERAGED
from models.errors import CheckpointError, OptionError
from models.mixed_step import MixedStep
from models.optimisation import Optimisation
from tests.models.mixed.runs import (
    CONFIGS,
    assert_same,
    data,
    fit,
    module,
    put,
    recipe,
    state,
    trainer,
)


@pytest.fixture
def mixed(tiny_weights):
    return module(tiny_weights)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_mixed_run__equals_each_adapter_trained_apart(tiny_weights, accumulate):
    """The same examples in the same order: half of a batch, or a batch of that half."""
    model = module(tiny_weights)
    starts = {name: state(model, name) for name in CONFIGS}
    options = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    fit(model, data({"rooms": 1, "streets": 1}), **options)
    for name in CONFIGS:
        alone = module(tiny_weights, {name: CONFIGS[name]}, router=False)
        put(alone, name, starts[name])
        fit(alone, data(batch_size=2, names=(name,)), **options)
        ended = state(alone, name)
        # Float32, 8 steps of Adam: batches of another size are summed in another
        # order, and where a gradient is nearly 0 Adam's first steps divide by it. Of
        # numbers that move by up to 0.04 the largest difference seen is 7e-6 on AVX2,
        # and on AVX-512 1.2e-4, in two of a thousand.
        assert_same(state(model, name), ended, rtol=1e-4, atol=5e-4)
        apart = [(state(model, name)[k] - v).abs().flatten() for k, v in ended.items()]
        assert torch.cat(apart).quantile(0.99) < 2e-5
        moved = [k for k, v in ended.items() if not torch.equal(v, starts[name][k])]
        assert len(moved) > len(ended) / 2


def test_mixed_run__begins_as_each_recipe_does(tiny_weights):
    """The unit range times max_depth is the network of that range, bit by bit."""
    torch.manual_seed(3)
    alone = recipe(tiny_weights, CONFIGS["rooms"])(10.0, (28, 42)).eval()
    torch.manual_seed(3)
    model = module(tiny_weights, {"rooms": CONFIGS["rooms"]}).eval()
    image = torch.randn(2, 3, 28, 42)
    with torch.no_grad(), model.bank.select("rooms"):
        assert torch.equal(model(image), alone(image))


def test_unused__does_not_move(mixed):
    """A share so small that it has examples in two steps of ten alone."""
    before = state(mixed, "streets")
    seen = []

    class Noting(MixedStep):
        def average(self, trainer):
            seen.append((self._counts.get("streets", 0), state(mixed, "streets")))
            super().average(trainer)

    mixed._step = Noting(mixed.bank, mixed.router)
    shares = {"rooms": 0.9, "streets": 0.1}
    options = {"limit_val_batches": 0, "max_epochs": 1}
    fit(mixed, data(shares, batch_size=2, n_train=10), **options)
    seen.append((0, state(mixed, "streets")))
    assert sorted({count for count, _ in seen}) == [0, 1]
    for (count, held), (_, after) in itertools.pairwise(seen):
        moved = any(not torch.equal(after[key], held[key]) for key in held)
        assert moved == (count > 0)
    assert any(not torch.equal(before[k], v) for k, v in seen[-1][1].items())


def test_resume__in_another_order_is_refused(tiny_weights, tmp_path):
    """By their order the optimiser knows its groups, and the router its answers."""
    first = fit(module(tiny_weights), data(), max_epochs=1, limit_val_batches=0)
    first.save_checkpoint(tmp_path / "a.ckpt")
    turned = module(tiny_weights, dict(reversed(CONFIGS.items())))
    with pytest.raises(CheckpointError, match="in the order rooms, streets, but"):
        fit(turned, data(), ckpt_path=tmp_path / "a.ckpt", max_epochs=2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume__is_exact(tiny_weights, tmp_path, accumulate):
    options = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    whole = module(tiny_weights)
    starts = {name: state(whole, name) for name in CONFIGS}
    fit(whole, data(), max_epochs=3, **options)
    half = module(tiny_weights)
    for name in CONFIGS:
        put(half, name, starts[name])
    # Schedules follow all steps, which a run that is stopped knows, too.
    begun = trainer(max_epochs=3, **options)
    begun.fit_loop.max_epochs = 3

    def stop(*_):
        if begun.global_step == 2 * (3 - accumulate) + 1 and not begun.should_stop:
            begun.save_checkpoint(tmp_path / "at.ckpt")
            begun.should_stop = True

    half.on_train_batch_end = stop
    begun.fit(half, datamodule=data())
    again = module(tiny_weights)
    fit(again, data(), ckpt_path=tmp_path / "at.ckpt", max_epochs=3, **options)
    for name in CONFIGS:
        assert_same(state(again, name), state(whole, name))
    assert_same(again.router.state_dict(), whole.router.state_dict())
    content = torch.load(tmp_path / "at.ckpt", weights_only=True)
    assert not [k for k in content["state_dict"] if k.startswith("network.")]


def test_validation__scores_each_source_by_its_protocol(mixed):
    found = fit(mixed, data(), max_epochs=1).callback_metrics
    for metric in ("delta1", "abs_rel"):
        each = [found[f"val/{name}/{metric}"] for name in CONFIGS]
        assert found[f"val/{metric}"] == pytest.approx(sum(map(float, each)) / 2)
    assert 0 <= found["val/routed"] <= 1
    scores = mixed.description()["adapters"]
    assert {scores[name]["scores"]["n_images"] for name in CONFIGS} == {4}


def test_checkpointing__backward_in_another_thread_recomputes_with_the_selection(
    tiny_weights,
):
    """As autograd does on a GPU: there, a thread has selected nothing."""
    import threading

    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(5)
        recipes = {
            name: recipe(tiny_weights, config, gradient_checkpointing=checkpointing)
            for name, config in CONFIGS.items()
        }
        model = module(tiny_weights, recipes=recipes).train()
        torch.manual_seed(6)
        with model.bank.select(["rooms", "streets"]):
            depth = model(torch.randn(2, 3, 28, 42))
        with model.bank.adapters.select(["rooms", "streets"], everywhere=True):
            thread = threading.Thread(target=depth.sum().backward)
            thread.start()
            thread.join()
        gradients.append([p.grad for _, p in model.trained_parameters()])
    some = 0
    for plain, own in zip(*gradients, strict=True):
        assert (plain is None) == (own is None)
        if plain is not None:
            some += 1
            assert torch.equal(plain, own)
    assert some > 20


def test_ema__checkpoints_hold_the_average_and_no_base(mixed, tiny_weights, tmp_path):
    def averaging():
        saving = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
        return [EMAWeightAveraging(decay=0.5), saving]

    options = {"enable_checkpointing": True, "limit_val_batches": 0}
    fit(mixed, data(), callbacks=averaging(), max_epochs=1, **options)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    averaged, own = content["state_dict"], content[AVERAGED]
    assert averaged.keys() == own.keys() == set(mixed.saved_keys())
    assert any(not torch.equal(averaged[key], own[key]) for key in own)
    again = module(tiny_weights)
    path = tmp_path / "last.ckpt"
    fit(again, data(), ckpt_path=path, callbacks=averaging(), **options)
    assert again.trainer.current_epoch == 2


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true", "64-true"])
def test_precision__trains(mixed, precision):
    before = state(mixed, "rooms")
    fit(mixed, data(), precision=precision, limit_val_batches=0, max_epochs=1)
    after = state(mixed, "rooms")
    assert all(v.isfinite().all() for v in after.values())
    assert any(not torch.equal(v, before[k]) for k, v in after.items())


def test_options__that_do_not_go_together_are_refused(tiny_weights):
    make = {n: recipe(tiny_weights, c) for n, c in CONFIGS.items()}
    other = Optimisation(optimizer=torch.optim.SGD)
    for recipes, said in (
        ({**make, "streets": recipe(tiny_weights, None)}, "adapter: null"),
        ({**make, "streets": recipe(tiny_weights, Lava2, other)}, "one for all"),
    ):
        with pytest.raises(OptionError, match=said):
            module(tiny_weights, recipes=recipes)
    model = module(tiny_weights, recipes=make)
    with pytest.raises(OptionError, match=r"has rooms, but data.sources has streets"):
        type(model)({"streets": 80.0}, {"streets": (28, 42)}, {"rooms": make["rooms"]})


def test_checkpoint__of_others_is_refused(mixed, tiny_weights, tmp_path):
    found = fit(mixed, data(), max_epochs=1, limit_val_batches=0)
    found.save_checkpoint(tmp_path / "mixed.ckpt")
    content = torch.load(tmp_path / "mixed.ckpt", weights_only=True)
    one = module(tiny_weights, {"rooms": CONFIGS["rooms"]})
    with pytest.raises(CheckpointError, match="has the adapters rooms, streets"):
        one.check_resumable(content)
    with pytest.raises(CheckpointError, match="has a router, but model"):
        module(tiny_weights, router=False).check_resumable(content)
    alone = recipe(tiny_weights, CONFIGS["rooms"])(10.0, (28, 42))
    with pytest.raises(CheckpointError, match="of a mixed run with the adapters rooms"):
        alone.check_resumable(content)
    assert isinstance(mixed.bank, DepthBank)


Lava2 = CONFIGS["rooms"]
