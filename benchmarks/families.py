"""Which of transformers' text models `attach` answers, row for row, as their unpacked models.

    python benchmarks/families.py [TYPE …]

Of each type's default configuration a small model is made by the names of its fields, three
fine-tunes are packed and attached, and a mixed batch, padded or as long as it has rows, and greedy
generation are compared with each task's own model given the whole batch. Without types: all that
have a language head, each in a process of its own, for a minute of CPU. A line for each:
equal, refused (with the sentence), WRONG, error, not built (by this script).
"""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import re
import resource
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

import randes_cli
from randes_cli import PackOptions, TaskInput, Transform, pack
from randes_cli.errors import RandesError

TASKS = ("cars", "sun", "dtd")
MAIN = ("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM")
#: Names of integer fields, and their sizes: the first that fits.
SIZES: list[tuple[str, int]] = [
    (r"type_vocab_size|num_labels|num_hidden_groups|inner_group_num|.*layer_i\w+", 1 << 30),
    (r".*vocab_size.*|n_vocab", 96),
    (r".*kv_heads|.*key_value_heads|.*top_?k|moe_topk|.*experts_per_tok.*|num_selected\w+", 2),
    (r"\w*mamba\w*heads|linear_num_\w+_heads", 8),
    (r"n_group|topk_group|\w*shared_experts?|.*first_k_dense.*|.*dense_layers", 1),
    (r".*heads?|n_head|.*experts.*|n_expert\w*", 4),
    (r".*(position|n_ctx|max_seq|seq_len|max_.*length|context_length).*", 64),
    (r".*(layers?|depth|blocks)", 2),
    (r".*(head_dim|d_kv|dim_head|head_size|d_head|rank|state_size|d_state|n_state)|v_head.*", 8),
    (r".*(intermediate|ffn|d_ff|d_inner|mlp_|feed_?forward|n_inner|dim_ff|inner_dim|ffw).*", 48),
    (r".*window.*|.*chunk_size", 4),
    (r".*(hidden_size|d_model|embd|embed|_dim|embedding_size|dim_model|width).*|dim", 32),
]


def small(kind: Any) -> Any:
    """A configuration of small sizes, with as many layers as it has kinds of them."""
    base = kind()
    given = {name: vars(base)[name] for name in kind.__dataclass_fields__ if name in vars(base)}
    heads = next((given[name] for name in given if re.fullmatch(r"\w*(n|num)\w*_heads?", name)), 0)
    made = {name: _small(name, value, heads) for name, value in given.items()}
    lists = {n: v for n, v in made.items() if isinstance(v, list) and v and isinstance(v[0], str)}
    layers = max([2, *(min(len(set(value)), 4) for value in lists.values())])
    for name, value in lists.items():
        first = sorted({kind: value.index(kind) for kind in value}.values())
        order = first + [place for place in range(len(value)) if place not in first]
        made[name] = [value[place] for place in sorted(order[:layers])]
    for name in made:
        if re.fullmatch(r"num_hidden_layers|n_layers?|num_layers", name):
            made[name] = layers
    skip = ("architectures", "model_type", "id2label", "label2id", "dtype")
    changed = {n: v for n, v in made.items() if v != given[n] and n not in skip}
    return kind(**changed)


def _small(name: str, value: Any, heads: int) -> Any:
    if type(value) is not int or value < 0:
        return value
    if re.fullmatch(r".*_token_id|.*_token", name):
        return value if value < 90 else 3 + sum(map(ord, name)) % 60
    if re.fullmatch(r".*kv_heads|.*key_value_heads", name) and value == heads:
        return 4
    return min(value, next((size for like, size in SIZES if re.fullmatch(like, name)), value))


def batch_of(model: Any, rows: int, length: int, *, padded: bool) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    known = inspect.signature(model.forward).parameters
    made = {"input_ids": torch.randint(5, 30, (rows, length), generator=source)}
    if padded and "attention_mask" in known:
        ends = torch.tensor([length - row % 3 for row in range(rows)])
        made["attention_mask"] = (torch.arange(length) < ends[:, None]).long()
    if "decoder_input_ids" in known:
        made["decoder_input_ids"] = torch.randint(5, 30, (rows, length - 2), generator=source)
    return made


def answers(found: Any, rows: int) -> dict[str, torch.Tensor]:
    """What of a model's answer has a line for each row."""
    tensors = {n: v for n, v in found.items() if isinstance(v, torch.Tensor) and v.dim()}
    return {n: v for n, v in tensors.items() if len(v) == rows and v.is_floating_point()}


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    finite = wanted.isfinite()
    if found.shape != wanted.shape or not torch.equal(finite, found.isfinite()):
        return float("inf")
    return ((found - wanted)[finite].abs().max() / wanted[finite].abs().max()).item()


@torch.inference_mode()
def judge(kind: Any, config: Any, folder: Path) -> tuple[str, str]:
    """The verdict on one class of models, and what it says."""
    try:
        torch.manual_seed(0)
        model = kind(small(config)).eval()
        for name in ("base", *TASKS):
            for weight in model.parameters():
                scale = 0.15 * weight.std(correction=0) + 0.01
                weight.add_(torch.randn_like(weight) * scale)
            model.save_pretrained(folder / name)
        model(**batch_of(model, 5, 7, padded=True))
    except Exception as error:
        return "not built", f"{type(error).__name__}: {' '.join(str(error).split())}"
    bank, opened = folder / "bank.randes", randes_cli.transformers.from_bank
    inputs = [TaskInput(task, str(folder / task)) for task in TASKS]
    two_sided = PackOptions(transform=Transform.from_preset("two-sided"), groups=2)
    pack(str(folder / "base"), inputs, bank, two_sided)
    alone = {task: opened(bank, task, cls=kind).eval() for task in (*TASKS, None)}
    mixed = randes_cli.attach(opened(bank, cls=kind).eval(), bank)
    gaps, apart = [], []
    for rows, length in ((5, 7), (4, 4), (2, 8), (8, 6)):
        asked = [("sun", "cars", None, "dtd")[row % 4] for row in range(rows)]
        batch = batch_of(model, rows, length, padded=rows == 5)
        whole = {task: answers(one(**batch), rows) for task, one in alone.items()}
        for name, value in answers(mixed(**batch, adapter_names=asked), rows).items():
            gaps += [gap(value[row], whole[task][name][row]) for row, task in enumerate(asked)]
            apart.append(gap(whole["sun"][name], whole["cars"][name]))
    if not apart or min(apart) < 1e-3:
        return "not built", "tasks that answer alike show nothing"
    if model.can_generate() and not model.config.is_encoder_decoder:
        how = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        ids = batch_of(model, 4, 7, padded=False)["input_ids"]
        made = mixed.generate(ids, adapter_names=asked[:4], **how)
        tokens = [alone[task].generate(ids, **how)[row] for row, task in enumerate(asked[:4])]
        gaps.append(0.0 if torch.equal(made, torch.stack(tokens)) else float("inf"))
    return ("equal" if max(gaps) <= 1e-4 else "WRONG"), f"{max(gaps):.1g}"


def run(kind: str, config: str, folder: str) -> None:
    """`judge` in a process of its own, and its line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    try:
        made = judge(getattr(tf, kind), getattr(tf, config), Path(folder))
    except RandesError as error:
        made = "refused", str(error)
    except Exception as error:
        made = "error", f"{type(error).__name__}: {error}"
    print(kind, *made, sep="\t", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="*")
    given = parser.parse_args()
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    maps = [getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES") for head in MAIN]
    for name in given.types or sorted(CONFIG_MAPPING_NAMES):
        found = next((known[name] for known in maps if name in known), None)
        if found is None:
            continue
        kind = found if isinstance(found, str) else found[0]
        with tempfile.TemporaryDirectory() as folder:
            inputs = (kind, CONFIG_MAPPING_NAMES[name], folder)
            one = multiprocessing.get_context("fork").Process(target=run, args=inputs)
            one.start()
            one.join()
        if one.exitcode:
            print(kind, "error", f"ended with {one.exitcode}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
