"""Whose rows a batch has: what libraries, threads of one loop and recordings do with blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from randes_cli.errors import UsageError
from tests.live.many import alone, assert_near, attached, bank_of, options
from tests.models import SMALL, bert, llama, whisper

IDS = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(2))
ASKED = ("sun", "cars")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank_of(llama, tmp_path_factory.mktemp("bank"), options(groups=2))


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_rows_that_guidance_puts_behind_themselves_are_no_beams(bank: Path, hold: str) -> None:
    mixed, models = attached(bank, hold=hold), alone(bank, ASKED)
    twice = torch.cat([IDS.flip(1), IDS])
    mixed.generate(IDS, adapter_names=ASKED, num_beams=2, max_new_tokens=2)  # which is over then
    with mixed.tasks(ASKED) as model, pytest.raises(UsageError, match="is given a batch of 4, and"):
        logits(model, twice)
    with mixed.tasks(ASKED) as model, pytest.raises(UsageError, match="is given a batch of 1, and"):
        logits(model, IDS[:1])
    with mixed.tasks(ASKED * 2) as model:
        found = logits(model, twice)
    wanted = [logits(models[ASKED[row % 2]], twice[[row]]) for row in range(4)]
    assert_near(found, torch.cat(wanted))
    with mixed.tasks(["sun"]) as model:  # of one task there may be any number
        assert_near(logits(model, twice), logits(models["sun"], twice))


def of_words() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "w0", "sep_token": "w2", "model_max_length": 12}
    return tf.PreTrainedTokenizerFast(tokenizer_object=words, **special)


def test_a_pipeline_that_asks_row_by_row_is_no_answer_for_all(tmp_path: Path) -> None:
    tokenizer = of_words()
    mixed: Any = attached(bank_of(bert, tmp_path))
    run: Any = tf.pipeline("text-classification", model=mixed.model, tokenizer=tokenizer)
    with mixed.tasks(ASKED):
        with pytest.raises(UsageError, match="a pipeline without batch_size asks one by one"):
            run(["w5 w6", "w5 w6"])
        first, second = run(["w5 w6", "w5 w6"], batch_size=2)
    assert first != second


def test_pieces_that_a_pipeline_makes_of_a_text_are_not_rows(tmp_path: Path) -> None:
    def tags() -> Any:
        return tf.BertForTokenClassification(tf.BertConfig(**SMALL, num_labels=3)), {}

    bank = bank_of(tags, tmp_path)
    mixed, models = attached(bank), alone(bank, ASKED)
    short, long = (["w5 w6 w7 w8", "w9 w10"], ["w5 " * 20, "w6 " * 20])

    def scores(model: Any, texts: list[str]) -> list[list[float]]:
        way: dict[str, Any] = {"stride": 4, "aggregation_strategy": "simple"}
        run: Any = tf.pipeline("token-classification", model=model, tokenizer=of_words(), **way)
        return [[float(tag["score"]) for tag in text] for text in run(texts, batch_size=2)]

    with mixed.tasks(ASKED) as model:
        found = scores(model, short)
        with pytest.raises(UsageError, match="makes several rows of an input"):
            scores(model, long)
    for row, task in enumerate(ASKED):
        assert found[row] == pytest.approx(scores(models[task], short)[row])
    with mixed.tasks(["sun"]) as model:
        assert scores(model, long)[1] == pytest.approx(scores(models["sun"], long)[1])


def sound(model: Any, features: torch.Tensor, **way: Any) -> torch.Tensor:
    found: torch.Tensor = model.generate(
        input_features=features, max_new_tokens=4, do_sample=False, eos_token_id=95, **way
    )
    return found


def hears() -> Any:
    model: Any = whisper()[0]
    given = {"decoder_start_token_id": 1, "pad_token_id": 0, "no_timestamps_token_id": 90}
    model.generation_config = tf.GenerationConfig(**given, eos_token_id=2)
    model.generation_config.is_multilingual = False
    return model, {}


def test_several_answers_to_a_sound_keep_its_task_and_shorter_sounds_do_not_end_first(
    tmp_path: Path,
) -> None:
    bank = bank_of(hears, tmp_path)
    mixed, models = attached(bank), alone(bank, ASKED)
    features = torch.randn(2, 16, 96, generator=torch.Generator().manual_seed(1))
    way = {"num_beams": 3, "num_return_sequences": 2}
    with mixed.tasks(ASKED) as model:
        found = sound(model, features[..., :32], **way)
    for row, task in enumerate(ASKED):
        wanted = sound(models[task], features[[row], :, :32], **way)
        assert torch.equal(found[2 * row : 2 * row + 2], wanted)
    ends = (torch.arange(96) < torch.tensor([96, 32])[:, None]).long()
    with mixed.tasks(ASKED) as model, pytest.raises(UsageError, match="is given a batch of 1, and"):
        sound(model, features, attention_mask=ends, return_timestamps=True)


def test_tasks_of_one_loop_do_not_answer_for_each_other(bank: Path) -> None:
    mixed, models = attached(bank), alone(bank, ASKED)
    turn = asyncio.Lock()

    async def ask(task: str, *, waits: bool) -> torch.Tensor:
        if waits:
            async with turn:
                return await ask(task, waits=False)
        with mixed.tasks([task]) as model:
            await asyncio.sleep(0.01)
            inner = asyncio.create_task(asyncio.to_thread(logits, model, IDS))
            assert torch.equal(await inner, logits(model, IDS))
            return logits(model, IDS)

    async def unnamed() -> None:
        await asyncio.sleep(0.002)
        logits(mixed.model, IDS)

    async def run(*several: Any) -> Any:
        return await asyncio.gather(*several, return_exceptions=True)

    found = asyncio.run(run(*[ask(task, waits=True) for task in ASKED]))
    for task, one in zip(ASKED, found, strict=True):
        assert_near(one, logits(models[task], IDS))
    first, *others = asyncio.run(run(ask("sun", waits=False), ask("cars", waits=False), unnamed()))
    assert_near(first, logits(models["sun"], IDS))
    assert [str(error).partition(":")[0] for error in others] == [
        "another task of asyncio is in a block of this thread, whose answers would be this one's",
        "no tasks are named here",
    ]


def test_blocks_that_end_in_another_order_say_so_and_leave_none_open(bank: Path) -> None:
    mixed, models = attached(bank), alone(bank, ASKED)

    def answers(task: str) -> Iterator[torch.Tensor]:
        with mixed.tasks([task]) as model:
            while True:
                yield logits(model, IDS)

    first, second = answers("sun"), answers("cars")
    next(first), next(second)
    with pytest.raises(UsageError, match="a block ended before one that was opened in it"):
        first.close()  # type: ignore[attr-defined]
    assert_near(next(second), logits(models["cars"], IDS))
    second.close()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no tasks are named"):
        logits(mixed.model, IDS)


@pytest.mark.parametrize(
    "record",
    [
        lambda model: torch.export.export(model, (IDS,)),
        lambda model: torch.jit.trace(lambda ids: model(ids).logits, (IDS,)),  # type: ignore[no-untyped-call]
        lambda model: torch.jit.trace(model.lm_head, (torch.ones(1, 32),)),  # type: ignore[no-untyped-call]
    ],
    ids=["export", "trace", "trace of a layer"],
)
def test_a_recording_of_tasks_is_refused(bank: Path, record: Callable[[Any], Any]) -> None:
    mixed = attached(bank)
    for asked in (ASKED, ["sun"]):
        with mixed.tasks(asked) as model, pytest.raises(UsageError, match="a recorded model would"):
            record(model)
