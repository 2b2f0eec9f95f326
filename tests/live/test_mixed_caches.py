"""Rows are continued as their tasks' own models do, whatever is kept of the past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import randes_cli
from tests.live.many import TASKS, options, pack_folders
from tests.models import GROUPED, Made, llama, t5

ASKED = ("cars", "sun", "dtd", None, "sun")


def mistral() -> Made:
    return tf.MistralForCausalLM(tf.MistralConfig(**GROUPED, sliding_window=4)), {}


def mamba() -> Made:
    config = tf.MambaConfig(vocab_size=96, hidden_size=32, state_size=8, num_hidden_layers=2)
    return tf.MambaForCausalLM(config), {}


def recurrent_gemma() -> Made:
    size = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 96, "lru_width": 32}
    config = tf.RecurrentGemmaConfig(
        **size, num_hidden_layers=3, num_attention_heads=4, attention_window_size=6
    )
    return tf.RecurrentGemmaForCausalLM(config), {}


def encoder_and_decoder() -> Made:
    model: Any = t5()[0]
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 0
    return model, {}


WAYS: list[tuple[Callable[[], Made], dict[str, Any]]] = [
    (llama, {"cache_implementation": "sliding_window"}),
    (llama, {"use_cache": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}),
    (llama, {"prefill_chunk_size": 3}),
    (llama, {"guidance_scale": 1.5}),
    (mistral, {"num_beams": 2, "num_return_sequences": 2}),
    (mistral, {"cache_implementation": "static"}),
    (mamba, {"num_beams": 2}),
    (recurrent_gemma, {"num_beams": 2}),
    (encoder_and_decoder, {"num_beams": 3}),
    (encoder_and_decoder, {"cache_implementation": "static"}),
]


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Made]], Path]:
    made: dict[Callable[[], Made], Path] = {}

    def bank(make: Callable[[], Made]) -> Path:
        if make not in made:
            folder = tmp_path_factory.mktemp(make.__name__)
            model: Any = make()[0]
            model.save_pretrained(folder / "base")
            for seed, task in enumerate(TASKS):  # far from their base: each goes on otherwise
                source = torch.Generator().manual_seed(seed)
                with torch.no_grad():
                    for weight in model.parameters():
                        noise = torch.randn(weight.shape, generator=source)
                        weight.add_(0.5 * (weight.std(correction=0) + 1e-3) * noise)
                model.save_pretrained(folder / task)
            made[make] = pack_folders(folder, options())
        return made[make]

    return bank


def continued(model: Any, rows: list[int], **more: Any) -> torch.Tensor:
    ids = torch.randint(3, 90, (5, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(7) >= torch.tensor([0, 2, 1, 0, 3])[:, None]
    if model.config.is_encoder_decoder:
        mask = mask.flip(1)
    found: torch.Tensor = model.generate(
        input_ids=(ids * mask)[rows],
        attention_mask=mask.long()[rows],
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        pad_token_id=0,
        **more,
    )
    return found


@pytest.mark.parametrize(
    ("make", "way"), WAYS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_rows_are_continued_as_their_own_models_do(
    make: Callable[[], Made],
    way: dict[str, Any],
    banks: Callable[[Callable[[], Made]], Path],
) -> None:
    torch.manual_seed(0)
    bank = banks(make)
    models = {task: randes_cli.transformers.from_bank(bank, task) for task in {*ASKED}}
    mixed = randes_cli.attach(randes_cli.transformers.from_bank(bank), bank)
    with mixed.tasks(ASKED) as model:
        found = continued(model, [0, 1, 2, 3, 4], **way)
    wanted = torch.cat([continued(models[task], [row], **way) for row, task in enumerate(ASKED)])
    assert torch.equal(found, wanted)
    base = torch.cat([continued(models[None], [row], **way) for row in range(len(ASKED))])
    assert not torch.equal(wanted, base)


@pytest.mark.parametrize("assisted", [True, False], ids=["by a model", "by the prompt"])
def test_guesses_that_come_from_elsewhere_are_judged_by_the_rows_task(
    assisted: bool, banks: Callable[[Callable[[], Made]], Path]
) -> None:
    torch.manual_seed(0)
    bank = banks(llama)
    way: dict[str, Any] = {"prompt_lookup_num_tokens": 2}
    if assisted:
        way = {"assistant_model": randes_cli.transformers.from_bank(bank)}
    mixed = randes_cli.attach(randes_cli.transformers.from_bank(bank), bank)
    for row, task in enumerate(ASKED):
        with mixed.tasks([task]) as model:
            found = continued(model, [row], **way)
        own = randes_cli.transformers.from_bank(bank, task)
        assert torch.equal(found, continued(own, [row]))
