"""A server's texts are those of each task's own model, however many ask at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import torch
import transformers as tf

from randes_cli.server.generating import Batch, Generating, Sizes
from randes_cli.server.sampling import Choice, Chooser, Sampling, choose
from randes_cli.server.service import Service
from randes_cli.server.words import Words, _key
from tests.live.many import options
from tests.server.service import (
    EIGHT,
    Alone,
    alphabet,
    client,
    serving,
    sizes,
    text_bank,
    tokenizer,
)

NAMES = (*EIGHT, "base")


def streamed(stream: Any) -> str:
    return "".join(
        (c.delta.content if hasattr(c, "delta") else c.text) or ""
        for chunk in stream
        for c in chunk.choices
    )


def test_twenty_clients_of_eight_tasks_get_what_each_task_alone_says(
    service: Service, alone: Alone
) -> None:
    def ask(number: int) -> tuple[str, str, int, str]:
        task, said, most = NAMES[number % 9], f"{number} " * (1 + number % 7), 6 + number
        own = client(service)
        words: dict[str, Any] = {"model": task, "temperature": 0, "max_tokens": most}
        if number % 4 == 0:
            made = own.chat.completions.create(
                messages=[{"role": "user", "content": said}], **words
            )
            return task, "chat" + said, most, made.choices[0].message.content
        if number % 4 == 1:
            messages: Any = [{"role": "user", "content": said}]
            return (
                task,
                "chat" + said,
                most,
                streamed(own.chat.completions.create(messages=messages, stream=True, **words)),
            )
        if number % 4 == 2:
            return task, said, most, own.completions.create(prompt=said, **words).choices[0].text
        return task, said, most, streamed(own.completions.create(prompt=said, stream=True, **words))

    with ThreadPoolExecutor(20) as clients:
        found = list(clients.map(ask, range(20)))
    answers = set()
    for task, said, most, text in found:
        run = alone.chat if said.startswith("chat") else alone.text
        assert text == run(task, said.removeprefix("chat"), most), task
        answers.add(text)
    assert len(answers) == 20


def test_tasks_answer_the_same_prompt_differently(asker: openai.OpenAI, alone: Alone) -> None:
    words: dict[str, Any] = {"prompt": "the same", "temperature": 0, "max_tokens": 12}
    found = {name: asker.completions.create(model=name, **words).choices[0].text for name in NAMES}
    assert len(set(found.values())) == len(NAMES)
    assert found == {name: alone.text(name, "the same", 12) for name in NAMES}


def test_a_seed_says_the_same_in_whatever_company(asker: openai.OpenAI) -> None:
    words: dict[str, Any] = {"model": "task-1", "prompt": "seed", "max_tokens": 8, "n": 3}
    one = asker.completions.create(seed=0, **words)
    many = ThreadPoolExecutor(6).map(
        lambda name: asker.completions.create(**{**words, "model": name}, seed=0), NAMES[:6]
    )
    texts = [choice.text for choice in one.choices]
    assert [choice.text for choice in list(many)[1].choices] == texts
    assert len(set(texts)) == 3
    assert [choice.index for choice in one.choices] == [0, 1, 2]
    assert texts != [c.text for c in asker.completions.create(seed=8, **words).choices]
    assert texts != [c.text for c in asker.completions.create(**words).choices]


def test_drawing_from_the_likeliest_alone_is_greedy(asker: openai.OpenAI, alone: Alone) -> None:
    words: dict[str, Any] = {"model": "task-2", "prompt": "draw", "max_tokens": 8, "seed": 1}
    wanted = alone.text("task-2", "draw", 8)
    for top_p in (0, 1e-6):
        assert asker.completions.create(top_p=top_p, **words).choices[0].text == wanted
    one = asker.completions.create(extra_body={"top_k": 1}, **words).choices[0].text
    assert one == wanted
    assert asker.completions.create(temperature=2, **words).choices[0].text != wanted


def test_bias_and_penalties_change_what_is_said(asker: openai.OpenAI) -> None:
    letter = alphabet()["x"]
    words: dict[str, Any] = {"model": "task-0", "prompt": "b", "max_tokens": 4, "temperature": 0}
    forced = asker.completions.create(logit_bias={str(letter): 100}, **words).choices[0].text
    assert forced == "xxxx"
    once = asker.completions.create(
        logit_bias={str(letter): 3}, frequency_penalty=2, presence_penalty=2, **words
    )
    assert once.choices[0].text.count("x") == 1


def test_a_developers_words_are_the_systems_where_no_template_knows_one() -> None:
    ours = "{% for m in messages %}{% if m.role in ROLES %}<{{ m.role }}>{% endif %}{% endfor %}"
    turns = [{"role": role, "content": "x"} for role in ("developer", "user")]
    for roles, written in (
        (("system", "user"), "<system><user>"),
        (("system", "developer", "user"), "<developer><user>"),
    ):
        own = tokenizer(around=True)
        words = Words(own, ours.replace("ROLES", str(roles)), threading.Lock())
        tokens = words.chat(turns)
        assert words.decode(tokens) == written and own.eos_token_id not in tokens


def test_a_tokenizer_is_shared_by_tasks_that_have_the_very_same() -> None:
    files = {"tokenizer.json": "1", "config.json": "1"}
    one = _key(files, {})
    assert one == _key({**files, "config.json": "2"}, {"chat_template": "other"})
    for other in ({"tokenizer.json": "2"}, {"merges.txt": "1"}, {"1/vocab.txt": "1"}):
        assert one != _key({**files, **other}, {})
    assert one != _key(files, {"add_bos_token": True})


def test_a_stop_ends_the_text_before_it(asker: openai.OpenAI, alone: Alone) -> None:
    whole = alone.text("task-3", "stop", 24)
    place = next(n for n in range(4, len(whole) - 1) if "\ufffd" not in whole[n : n + 2])
    stop = whole[place : place + 2]
    words: dict[str, Any] = {"model": "task-3", "prompt": "stop", "max_tokens": 24}
    made = asker.completions.create(temperature=0, stop=["never", stop], **words)
    assert made.choices[0].text == whole[: whole.index(stop)]
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None and made.usage.completion_tokens < 24
    stream = asker.completions.create(temperature=0, stop=stop, stream=True, **words)
    assert streamed(stream) == whole[: whole.index(stop)]


def test_usage_and_reasons_are_counted(asker: openai.OpenAI) -> None:
    words: dict[str, Any] = {"model": "task-4", "max_tokens": 5, "temperature": 0}
    made = asker.completions.create(prompt=[[69, 72, 73, 74], [70, 71]], n=2, **words)
    assert made.usage is not None
    counts = made.usage
    assert (counts.prompt_tokens, counts.completion_tokens, counts.total_tokens) == (6, 20, 26)
    assert {choice.finish_reason for choice in made.choices} == {"length"}
    assert len(made.choices) == 4
    chunks = list(
        asker.chat.completions.create(
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
            **words,
        )
    )
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"


def test_the_default_lengths_are_openais(asker: openai.OpenAI) -> None:
    made = asker.completions.create(model="task-5", prompt="short", temperature=0)
    assert made.usage is not None and made.usage.completion_tokens == 16
    talk = asker.chat.completions.create(
        model="task-5", messages=[{"role": "user", "content": "long"}], temperature=0
    )
    assert talk.usage is not None and talk.usage.total_tokens == 256


def test_log_probabilities_are_the_models(asker: openai.OpenAI, alone: Alone) -> None:
    made = asker.chat.completions.create(
        model="task-6",
        messages=[{"role": "user", "content": "log"}],
        temperature=0,
        max_tokens=4,
        logprobs=True,
        top_logprobs=3,
    )
    prompt = tokenizer()("<user>log<assistant>").input_ids
    tokens = alone.tokens("task-6", prompt, 4)
    with torch.inference_mode():
        logits = alone.model("task-6")(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
    wanted = logits[len(prompt) - 1 : -1].log_softmax(-1)
    told = made.choices[0].logprobs
    assert told is not None and told.content is not None and len(told.content) == 4
    for step, one in enumerate(told.content):
        assert one.logprob == pytest.approx(float(wanted[step].max()), abs=1e-4)
        top = wanted[step].topk(3).values.tolist()
        assert [t.logprob for t in one.top_logprobs] == pytest.approx(top, abs=1e-4)
    plain = asker.completions.create(model="task-6", prompt=prompt, logprobs=2, temperature=0)
    logprobs = plain.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[:4] == pytest.approx(
        [one.logprob for one in told.content], abs=1e-4
    )


def test_an_end_token_ends_the_answer(bank: Path, asker: openai.OpenAI) -> None:
    made = asker.completions.create(
        model="task-7", prompt="end", max_tokens=9, temperature=0, logit_bias={"2": 100}
    )
    assert made.choices[0].text == "" and made.choices[0].finish_reason == "stop"
    assert made.usage is not None and made.usage.completion_tokens == 1


def gpt2() -> Any:
    return tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=len(alphabet()), n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )


def bloom() -> Any:
    return tf.BloomForCausalLM(
        tf.BloomConfig(vocab_size=len(alphabet()), hidden_size=32, n_layer=2, n_head=4)
    )


def gemma3() -> Any:
    return tf.Gemma3ForCausalLM(
        tf.Gemma3TextConfig(**{**sizes(), "sliding_window": 8}, max_position_embeddings=64)
    )


@pytest.mark.parametrize("make", [gpt2, bloom, gemma3], ids=lambda make: make.__name__)
def test_small_steps_and_little_room_change_no_word(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    """Prompts read a token at a time, and answers that give way to older ones."""
    bank = text_bank(tmp_path, EIGHT[:3], make(), options(groups=2))
    alone, own, within = Alone(bank), tokenizer(), list[bool]()
    lengths = [*[1, 6, 11, 16] * 2, 50]  # the last has room by itself alone
    with serving(bank, Sizes(rows=4, cells=64, chunk=1)) as service:
        asker, (lane,) = client(service), service.engine.current.lanes
        assert isinstance(lane, Generating)
        forward = lane._forward

        def looked_at(batch: Batch, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            held = [one for one in (lane.running, lane.joining) if one]
            columns = max(*(one.mask.shape[1] for one in held), mask.shape[1])
            within.append(lane.rows == 1 or lane.rows * columns <= 64)
            within.append(bool(mask[:, 0].any()))  # some row has each column
            return forward(batch, ids, mask)

        lane._forward = looked_at  # type: ignore[method-assign]

        def ask(number: int) -> str:
            words: dict[str, Any] = {"model": EIGHT[number % 3], "prompt": "p" * lengths[number]}
            most = min(30, 64 - lengths[number])
            made = asker.completions.create(**words, max_tokens=most, temperature=0)
            return str(made.choices[0].text)

        with ThreadPoolExecutor(9) as clients:
            found = list(clients.map(ask, range(9)))
    for number, text in enumerate(found):
        prompt = own("p" * lengths[number]).input_ids
        wanted = alone.tokens(EIGHT[number % 3], prompt, min(30, 64 - lengths[number]))
        assert text == own.decode(wanted, skip_special_tokens=True)
    assert all(within)


def test_a_row_without_a_likeliest_token_fails_alone() -> None:
    plain = Chooser(Sampling(temperature=0), seed=0)
    broken, whole = choose(torch.tensor([[torch.nan, 1], [0, 1]]), [plain, plain])
    assert (str(broken), whole) == ("the model's logits are NaN", Choice(1))


def test_a_row_that_goes_while_prompts_are_read_leaves_their_columns() -> None:
    rows: Any = [SimpleNamespace(ids=[1, 2, 3]), SimpleNamespace(ids=[4])]
    batch = Batch.of(rows, torch.device("cpu"))
    batch.keep([1])
    assert (batch.ids.tolist(), batch.mask.tolist()) == ([[0, 0, 4]], [[0, 0, 1]])
