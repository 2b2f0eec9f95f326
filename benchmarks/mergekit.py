"""mergekit's task arithmetic on the same checkpoints, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from models import Size

VERSION = "0.1.5"


def install(folder: Path) -> Path:
    """The folder of mergekit's commands; this interpreter's torch is used, not a second one."""
    place = folder / "mergekit"
    commands = place / "bin"
    if not (commands / "mergekit-yaml").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        packages = next(place.glob("lib/python*/site-packages"))
        shared = (one for one in sys.path if Path(one).name == "site-packages")
        (packages / "shared.pth").write_text("\n".join(shared) + "\n")
        words = ("-m", "pip", "install", "--quiet", f"mergekit=={VERSION}")
        subprocess.run([str(commands / "python"), *words], check=True)
    return commands


def _as_model(size: Size, weights: Path, folder: Path) -> str:
    """A folder with a configuration and a link to the weights, as transformers has it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.hidden // 64,
        "num_key_value_heads": size.hidden // 64,
        "vocab_size": size.vocabulary,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    link = folder / "model.safetensors"
    if not link.exists():
        os.link(weights, link)
    return str(folder)


def command(commands: Path, size: Size, base: Path, tasks: Sequence[Path], out: Path) -> list[str]:
    """mergekit's command line for base + tasks with its fastest options."""
    folder = out.parent / f"mergekit-{size.name}-{len(tasks)}"
    models = [_as_model(size, path, folder / path.stem) for path in tasks]
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": _as_model(size, base, folder / base.stem),
        "models": [{"model": model, "parameters": {"weight": 0.3}} for model in models],
        "dtype": "bfloat16",
    }
    file = folder / "merge.yml"
    file.write_text(json.dumps(recipe))
    return [
        str(commands / "python"),
        str(commands / "mergekit-yaml"),
        str(file),
        str(out),
        "--no-copy-tokenizer",
        "--lazy-unpickle",
    ]
