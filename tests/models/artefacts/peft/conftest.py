"""Fixtures of the PEFT tests."""

import copy

import pytest

from models.adapters import (
    adapt,
)
from tests.models.artefacts.peft.cases import (
    METHODS,
    perturb,
)


@pytest.fixture
def adapted(tiny, request):
    """(network, config, plain base), every trained tensor moved."""
    base = copy.deepcopy(tiny)
    config = METHODS[request.param]
    adapt(tiny, config)
    perturb(tiny)
    return tiny, config, base
