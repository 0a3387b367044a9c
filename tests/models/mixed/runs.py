"""Small mixed runs of synthetic rooms and streets over random tiny weights."""

import copy
import warnings

import torch
from lightning.pytorch import Trainer

from datamodules.mixed import MixedDataModule
from datamodules.synthetic import SyntheticDataModule
from models import DepthAnythingModule, MixedModule
from models.adapters import DoRA, Lava
from models.optimisation import Optimisation

SIZE = (28, 42)
CONFIGS = {"rooms": Lava(rank=2), "streets": DoRA(rank=2)}
OPTIMISATION = Optimisation(adapter_lr=1e-2, head_lr=1e-3)


def data(shares=None, batch_size=4, n_train=8, names=("rooms", "streets"), **options):
    sources = {
        name: SyntheticDataModule(name, n_train, 4, 2, SIZE, cache=True)
        for name in names
    }
    return MixedDataModule(sources, shares, batch_size, **options)


def recipe(weights, config, optimisation=OPTIMISATION, **options):
    def make(max_depth, image_size):
        return DepthAnythingModule(
            max_depth,
            image_size,
            "tiny",
            weights=str(weights),
            adapter=config,
            optimisation=optimisation,
            **options,
        )

    return make


def module(weights, configs=CONFIGS, router=True, recipes=None):
    depths = {"rooms": 10.0, "streets": 80.0}
    recipes = recipes or {n: recipe(weights, config) for n, config in configs.items()}
    return MixedModule(
        {name: depths[name] for name in recipes},
        dict.fromkeys(recipes, SIZE),
        recipes,
        router=router,
    )


def trainer(folder=None, **options):
    given = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": 0.05,
        "default_root_dir": folder,
    }
    return Trainer(**(given | options))


def fit(model, source, folder=None, ckpt_path=None, **options):
    found = trainer(folder, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")
        found.fit(model, datamodule=source, ckpt_path=ckpt_path)
    return found


def state(model, name):
    """An adapter's tensors, copied."""
    member = model.bank.adapters.roster.find(name)
    return copy.deepcopy(member.state_dict())


def put(model, name, tensors):
    model.bank.adapters.roster.find(name).load_state_dict(tensors)


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if tolerance:
            torch.testing.assert_close(value, other[key], **tolerance)
        else:
            assert torch.equal(value, other[key]), key
