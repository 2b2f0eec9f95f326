"""Continuous batching: requests of several tasks in one step, each as its own model answers it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from randes_cli.errors import MissingError, UsageError
from randes_cli.live.batch.selection import Selection
from tests.live.many import alone, assert_near, attached, bank_of, options
from tests.models import EXPERTS, GROUPED, Made, gpt2, llama, qwen3_moe

#: Prompts that begin alike, of unlike tasks and of one.
_PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13]
INPUTS = [_PROMPT, _PROMPT, [*_PROMPT, 14], [*_PROMPT, 14], [3, 4], [7] * 14]
TASKS = ["sun", None, "cars", "sun", "dtd", "cars"]


def gemma3() -> Made:
    """Norms of heads, where they come before tokens; as many heads as requests."""
    sizes = {**GROUPED, "hidden_size": 48, "num_attention_heads": 6, "sliding_window": 6}
    kinds = ["sliding_attention", "full_attention"]
    return tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**sizes, layer_types=kinds)), {}


def gpt_oss() -> Made:
    """A number for each head, put beside scores."""
    sizes = {**EXPERTS, "num_attention_heads": 6, "num_local_experts": 4}
    return tf.GptOssForCausalLM(tf.GptOssConfig(**sizes)), {}


def sizes(**more: Any) -> Any:
    return tf.ContinuousBatchingConfig(**{"num_blocks": 64, "page_size": 4, **more})


def asked(**more: Any) -> Any:
    return tf.GenerationConfig(**{"max_new_tokens": 5, "eos_token_id": -1, **more})


def wanted(models: dict[Any, Any], task: str | None, ids: Sequence[int], count: int = 5) -> Any:
    model = models[task]
    return model.generate(torch.tensor([ids]), max_new_tokens=count, eos_token_id=-1)[
        0, len(ids) :
    ].tolist()


@pytest.mark.parametrize(
    ("make", "most"),  # prompts in pieces, or all together
    [(llama, 7), (gpt2, 7), (qwen3_moe, 7), (gemma3, 7), (gpt_oss, 7), (llama, 64), (gemma3, 64)],
)
def test_requests_of_several_tasks_share_each_step(
    make: Any, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(make, tmp_path, options(groups=2))
    mixed, models = attached(bank), alone(bank)
    tasks: list[int] = []

    def selected(*given: Any, of: Any = Selection.of) -> Any:
        made = of(*given)
        tasks.append(len(made.tasks))
        return made

    monkeypatch.setattr(Selection, "of", selected)
    found = mixed.generate_batch(
        INPUTS,
        adapter_names=TASKS,
        generation_config=asked(),
        continuous_batching_config=sizes(max_batch_tokens=most, return_logprobs=True),
    )
    assert list(found) == [f"req_{place}" for place in range(len(INPUTS))]
    assert max(tasks) == 4
    for one, task, ids in zip(found.values(), TASKS, INPUTS, strict=True):
        made = one.generated_tokens
        assert made == wanted(models, task, ids)
        assert_near(torch.tensor(one.logprobs), chances(models[task], ids, made))
    first, second = found["req_0"], found["req_1"]  # one prompt of two tasks
    assert max(abs(a - b) for a, b in zip(first.logprobs, second.logprobs, strict=True)) > 1e-2


@torch.inference_mode()
def chances(model: Any, ids: list[int], made: list[int]) -> torch.Tensor:
    """The logarithms of the probabilities of what was made."""
    logits = model(torch.tensor([ids + made])).logits[0, len(ids) - 1 : -1]
    return torch.as_tensor(logits.log_softmax(-1)[torch.arange(len(made)), made])


def test_a_manager_takes_requests_that_name_their_tasks(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options(groups=2))
    mixed, models = attached(bank), alone(bank)
    given = {"generation_config": asked(top_k=1, temperature=2.0, do_sample=True)}
    # Fewer pages than all requests need together: some wait, and some are begun anew.
    given["continuous_batching_config"] = sizes(num_blocks=9, per_request_processors=True)
    lengths = {0: 5, 1: 2, 2: 7, 3: 5, 4: 9, 5: 1}
    with mixed.continuous_batching_context_manager(**given) as manager:
        ids = [
            manager.add_request(one, adapter_name=task, max_new_tokens=lengths[row])
            for row, (one, task) in enumerate(zip(INPUTS, TASKS, strict=True))
        ]
        manager.add_request([5] * 4, "gone", adapter_name="sun", max_new_tokens=200)
        manager.cancel_request("gone")
        manager.add_request([5] * 4, "wrong", adapter_name="sun", unknown=1)
        with pytest.raises(MissingError, match=r"did you mean cars\?"):
            manager.add_request([5], adapter_name="car")
        with pytest.raises(UsageError, match="name the task of the request"):
            manager.add_request([5])
        with pytest.raises(UsageError, match="a task for each of the requests"):
            manager.add_requests([[5], [6]], adapter_names=["sun"])
        found: dict[str, Any] = {}
        while len(found) <= len(ids):
            one = manager.get_result(timeout=60)
            found[one.request_id] = one
        with torch.inference_mode(), mixed.tasks(["sun", "cars"]) as model:  # between two steps
            rows = model(torch.tensor([_PROMPT, _PROMPT])).logits
    assert_near(rows[1], models["cars"](torch.tensor([_PROMPT])).logits[0].detach())
    assert "unknown" in found.pop("wrong").error and "gone" not in found
    for row, name in enumerate(ids):
        answer = wanted(models, TASKS[row], INPUTS[row], lengths[row])
        assert found[name].generated_tokens == answer


def test_several_answers_to_a_request_and_rows_of_a_block(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options(groups=2))
    mixed, models = attached(bank), alone(bank)
    several = asked(top_k=1, do_sample=True, num_return_sequences=2)
    given = {"continuous_batching_config": sizes()}
    found = mixed.generate_batch(INPUTS, adapter_names=TASKS, generation_config=several, **given)
    assert len(found) == 2 * len(INPUTS)
    for name, one in found.items():
        row = int(name.partition("__")[0].removeprefix("req_"))
        assert one.generated_tokens == wanted(models, TASKS[row], INPUTS[row])
    answer = wanted(models, "sun", _PROMPT)
    other = wanted(models, "cars", _PROMPT)
    with mixed.tasks(["sun", "cars"]) as model:
        generate: Any = model.generate_batch
        found = generate([_PROMPT, _PROMPT], generation_config=asked(), **given)
        with pytest.raises(UsageError, match="3 requests, and tasks for"):
            generate([_PROMPT] * 3, generation_config=asked(), **given)
        with pytest.raises(UsageError, match="outside of a block"):
            mixed.init_continuous_batching(generation_config=asked(), **given)
    assert [one.generated_tokens for one in found.values()] == [answer, other]
    with mixed.tasks(["sun"]) as model:
        generate = model.generate_batch
        found = generate([_PROMPT] * 3, generation_config=asked(), **given)
    assert [one.generated_tokens for one in found.values()] == [answer] * 3
    with pytest.raises(UsageError, match="for each of the requests"):
        mixed.generate_batch(INPUTS, adapter_names=["sun"])
    with pytest.raises(UsageError, match="would repeat its"):
        mixed.generate_batch(
            INPUTS, adapter_names=TASKS, continuous_batching_config=sizes(use_cuda_graph=True)
        )
    with pytest.raises(UsageError, match="no tasks are named"):
        mixed.model.generate_batch(INPUTS)  # type: ignore[operator]
    assert mixed.generate_batch([], adapter_names=[]) == {}
    with pytest.raises(UsageError, match="a request has no tokens"):
        mixed.generate_batch([[5], []], adapter_names=["sun", "cars"], **given)
    with pytest.raises(UsageError, match="continuous batching has no beams"):
        given["generation_config"] = asked(num_beams=2)
        mixed.generate_batch(INPUTS, adapter_names=TASKS, **given)


def test_a_manager_that_is_kept_serves_other_tasks_later_and_ends_with_them(
    tmp_path: Path,
) -> None:
    bank = bank_of(llama, tmp_path)
    mixed, models = attached(bank), alone(bank)
    given: Any = {"generation_config": asked(), "continuous_batching_config": sizes()}
    for tasks in (["sun", "cars"], ["cars", None]):
        found = mixed.generate_batch(
            [_PROMPT, _PROMPT], adapter_names=tasks, persistent_manager=True, **given
        )
        answers = [wanted(models, task, _PROMPT) for task in tasks]
        assert [one.generated_tokens for one in found.values()] == answers
    plain = mixed.detach()
    names = {"init_continuous_batching", "generate_batch", "_cached_continuous_batching_manager"}
    assert not names & set(vars(plain))
    found = plain.generate_batch([_PROMPT], **given)  # type: ignore[operator]
    assert found["req_0"].generated_tokens == wanted(models, None, _PROMPT)


def test_tokens_that_are_kept_answer_as_their_own_tasks(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    mixed = attached(bank)
    ids = torch.tensor([_PROMPT[:6], INPUTS[5][:6]])
    numbers = torch.tensor([[0, 1, 2, -1, 0, 1], [1, 1, 1, 0, 2, 2]])
    with torch.inference_mode(), mixed.tasks(numbers) as model:
        whole = model(ids).logits
        for kept in (2, torch.tensor([5, 0, 3]), torch.tensor([3, 2, 1, 0, 5, 4])):
            places = torch.arange(4, 6) if isinstance(kept, int) else kept
            assert_near(model(ids, logits_to_keep=kept).logits, whole[:, places])
        assert_near(model(ids).logits, whole)
