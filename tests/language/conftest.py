"""Each tiny model is made once."""

import pytest

from tests.language.models import CONFIGS, save_model, save_tasks


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with a random model of each family below its name."""
    root = tmp_path_factory.mktemp("models")
    for family in CONFIGS:
        save_model(root / family, family)
    return root


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """A root with a training file and two tasks."""
    return save_tasks(tmp_path_factory.mktemp("tasks") / "data")
