"""Tiny random language models with tokenizers, and instructions in files."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from datamodules.files.instructions import Instruction
from datamodules.prompts import prompt_of

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPES = {
    **{"vocab_size": 320, "intermediate_size": 48, "num_key_value_heads": 2},
    **{"max_position_embeddings": 512, "head_dim": 8},
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZE, **SHAPES),
    "qwen2": lambda: transformers.Qwen2Config(
        **SIZE, **SHAPES, tie_word_embeddings=True
    ),
    "gemma": lambda: transformers.GemmaConfig(**SIZE, **SHAPES),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=512
    ),
}


def row(i: int) -> dict[str, str]:
    answer = f"answer{i % 3 + 1}"
    return {
        "instruction": f"Please choose the correct answer to the question: no {i}?\n\n"
        "Answer1: red Answer2: green Answer3: blue\n\n"
        "Answer format: answer1/answer2/answer3",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


def tokenizer(size: int = 310) -> PreTrainedTokenizerFast:
    texts = [
        prompt_of(Instruction(**row(i)), "clean", training=True) + row(i)["output"]
        for i in range(8)
    ]
    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_model(folder: Path, family: str = "llama", **options) -> Path:
    """A random model and its tokenizer, as `transformers` keeps them."""
    torch.manual_seed(0)
    config = CONFIGS[family]()
    config.update({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **options})
    network = transformers.AutoModelForCausalLM.from_config(config)
    network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_tasks(root: Path, tasks=("ARC-Easy", "openbookqa"), train=24, test=7) -> Path:
    """A training file and a test set for each task."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.json").write_text(json.dumps([row(i) for i in range(train)]))
    for task in tasks:
        (root / task).mkdir()
        rows = [row(i) for i in range(100, 100 + test)]
        (root / task / "test.json").write_text(json.dumps(rows))
    return root


def write_recipe(
    path: Path, weights: Path, root: Path, method="Lava", options=None, **data
) -> Path:
    """A whole recipe; YAML reads JSON."""
    adapter = {
        "class_path": f"models.adapters.{method}",
        "init_args": {"rank": 2, **(options or {})},
    }
    if method == "SVDiff":
        adapter["init_args"].pop("rank")
    content = {
        "seed_everything": 0,
        "model": {
            "class_path": "models.LanguageModule",
            "init_args": {
                "weights": str(weights),
                "adapter": adapter,
                "optimisation": {"adapter_lr": 1e-2},
            },
        },
        "data": {
            "class_path": "datamodules.CommonsenseDataModule",
            "init_args": {
                "root": str(root),
                "train": "train.json",
                "tasks": ["ARC-Easy", "openbookqa"],
                "n_val": 4,
                "batch_size": 4,
                **data,
            },
        },
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "devices": 1,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    path.write_text(json.dumps(content))
    return path
