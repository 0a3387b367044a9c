"""One adapter method a file. `METHODS` is the one list that a new one enters."""

from models.adapters.base import AdapterConfig
from models.adapters.methods.dora import DoRA as DoRA
from models.adapters.methods.fast_lora import FastLoRA as FastLoRA
from models.adapters.methods.lava import Lava as Lava
from models.adapters.methods.lora import LoRA as LoRA
from models.adapters.methods.svdiff import SVDiff as SVDiff
from models.adapters.methods.train_fully import TrainFully as TrainFully
from models.adapters.methods.tucker import Tucker as Tucker

METHODS: dict[str, type[AdapterConfig]] = {
    method.__name__: method
    for method in (Lava, LoRA, DoRA, Tucker, SVDiff, FastLoRA, TrainFully)
}
