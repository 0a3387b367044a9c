"""Parameter-efficient adapters in plain torch; importable without the rest.

Every method of `METHODS` can be imported from here.
"""

from models.adapters.bank import AdapterBank as AdapterBank
from models.adapters.base import AdapterConfig as AdapterConfig
from models.adapters.base import AdapterError as AdapterError
from models.adapters.combine import increments as increments
from models.adapters.combine import weighted as weighted
from models.adapters.folding import Merged as Merged
from models.adapters.folding import merge as merge
from models.adapters.folding import unmerge as unmerge
from models.adapters.inject import adapt as adapt
from models.adapters.inject import adapted_layers as adapted_layers
from models.adapters.inject import adapters as adapters
from models.adapters.inject import disabled as disabled
from models.adapters.inject import is_never_trained as is_never_trained
from models.adapters.methods import *  # noqa: F403 - the one list of methods
from models.adapters.opened import OpenedAdapter as OpenedAdapter
from models.adapters.penalty import orthogonality as orthogonality
from models.adapters.reach import unreached as unreached
