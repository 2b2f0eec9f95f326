"""Small models to adapt, and adapters with random factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf

from randes_cli.core.convert import numpy_dtype
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.lora.merged import MergedAdapter
from tests.models import GROUPED

Arrays = dict[str, np.ndarray[Any, Any]]


def llama() -> Any:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**{**GROUPED, "vocab_size": 64}))


def t5() -> Any:
    config = tf.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return tf.T5ForConditionalGeneration(config)


def randomize(model: Any) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(0.05 * torch.randn_like(weight))


def merged(base: Path, adapter: Path) -> Arrays:
    """All tensors of base + adapter, whole."""
    source = MergedAdapter(open_checkpoint(str(base)), open_checkpoint(str(adapter)))
    made = {}
    for name, tensor in source.tensors.items():
        out = np.empty(tensor.nbytes, np.uint8)
        source.read(name, 0, out)
        made[name] = out.view(numpy_dtype(tensor.dtype)).reshape(tensor.shape)
    return made
