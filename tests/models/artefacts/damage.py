"""What other hands may do to the description in a file, and what is said then."""

import json

import torch
from safetensors.torch import save_file

from models.adapters import AdapterError
from models.artefacts.adapter_folder import DESCRIPTION_FILE
from models.artefacts.files import KEY, read_tensors
from models.artefacts.peft.folder import WEIGHTS_FILE

DAMAGE = {
    "newer": (lambda d: d | {"format_version": 99}, "update the program"),
    "of another kind": (
        lambda d: d | {"record": "os.path"},
        "no Record of models|predicts no depth",
    ),
    "an entry short": (lambda d: {k: d[k] for k in d if k != "base_sha256"}, "has no"),
    "a strange entry": (lambda d: d | {"network": 3}, "not as this program"),
    "a strange adapter": (lambda d: d | {"adapter": [1]}, "not as this program"),
    "a list": (lambda d: [1, 2], "this program|JSON"),
}


def change_description(path, change):
    """Of a checkpoint, an adapter folder or a PEFT folder, in place."""
    if path.suffix == ".ckpt":
        content = torch.load(path, weights_only=True)
        torch.save(content | {KEY: change(content[KEY])}, path)
    elif (path / DESCRIPTION_FILE).is_file():
        file = path / DESCRIPTION_FILE
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
    else:
        tensors, notes = read_tensors(path / WEIGHTS_FILE, AdapterError)
        notes[KEY] = json.dumps(change(json.loads(notes[KEY])))
        save_file(tensors, path / WEIGHTS_FILE, notes)
