"""Bases whose embedding and output head are one tensor, and adapters that part the two.

PEFT's own merge is right where one of the two was saved whole (the head becomes a tensor of its
own) and wrong where a low-rank update meets the shared tensor (it changes both, or is added
twice), so the first is done likewise and the second refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from randes_cli.errors import MismatchError
from randes_cli.files.source import Source
from randes_cli.specs import TensorInfo

T = TypeVar("T")

#: Bytes that are compared at a time.
_COMPARED = 2**22
#: Heads by a tensor that only a model with that head has.
_MARKS = {
    "cls.predictions.transform.dense.weight": "cls.predictions.decoder.weight",
    "lm_head.dense.weight": "lm_head.decoder.weight",
    "vocab_transform.weight": "vocab_projector.weight",
    "generator_predictions.dense.weight": "generator_lm_head.weight",
    "predictions.dense.weight": "predictions.decoder.weight",
    "head.dense.weight": "decoder.weight",
}
#: Heads by model type, where they are not `lm_head.weight`.
_OTHERS = {
    "whisper": "proj_out.weight",
    "moonshine": "proj_out.weight",
    "canary": "proj_out.weight",
    "bert-generation": "lm_head.decoder.weight",
    "modernbert-decoder": "decoder.weight",
    "gpt_neox_japanese": "embed_out.weight",
    "xlnet": "lm_loss.weight",
    "rwkv": "head.weight",
    "git": "output.weight",
    "biogpt": "output_projection.weight",
    "trocr": "output_projection.weight",
    "flaubert": "pred_layer.proj.weight",
    "xlm": "pred_layer.proj.weight",
}
#: Model types whose head lies within a part (a file that lacks it does not tell where), and those
#: whose parts share the embedding, too.
_INNER = frozenset(
    (
        *("blip", "blip-2", "instructblip", "instructblipvideo", "kosmos-2", "kosmos-2.5"),
        *("encoder-decoder", "vision-encoder-decoder", "speech-encoder-decoder"),
        "shieldgemma2",
    )
)
_MANY = frozenset(("prophetnet", "seamless_m4t", "seamless_m4t_v2", "t5gemma", "t5gemma2"))
#: What a head may be called; `lm_head` first.
HEADS = ("lm_head.weight", "embed_out.weight", *_MARKS.values(), *_OTHERS.values())
#: Ends of the names of heads that lie within a part.
_ENDINGS = (
    *(f".lm_head{inner}.weight" for inner in ("", ".out_proj", ".decoder")),
    *(".cls.predictions.decoder.weight", ".output_projection.weight"),
)
EMBEDDING = re.compile(
    r"(^|[./])(embed_tokens|wte|word_embeddings?|embed_in|shared|tok_embeddings|tokens_embed"
    r"|embeddings|w)\.weight$"
)
_WITH_HEAD = re.compile(
    r"LMHead|BertGenerationDecoder|MTModel"
    r"|ForCausalLM|ForConditionalGeneration|ForMaskedLM|ForPreTraining|ForSpeech"
)


@dataclass(frozen=True, slots=True)
class Tie:
    """Two names of one tensor: the embedding, and the head, which the base's file may lack."""

    embedding: str
    head: str


#: Embeddings and heads, which no adapter adds beside those of its base.
SHARED = re.compile(r"(embed\w*|wte|shared|lm_head)\.weight$")


def find_tie(
    base: Mapping[str, TensorInfo], config: Mapping[str, Any] | None, start: str
) -> Tie | None:
    """The pair that a base may share, `start` being its component in front of names.

    None where it has no head, or none by a name that is known.
    """
    embedding = embedding_of(base, config, start)
    if embedding is None:
        return None
    names = {name[len(start) :] for name in base if name.startswith(start)}
    head = next((name for name in HEADS if name in names), None)
    if head is None and config is not None:
        if not any(map(_WITH_HEAD.search, map(str, config.get("architectures") or ()))):
            return None
        kind = str(config.get("model_type"))
        if kind in _INNER | _MANY:
            return None
        marks = (made for mark, made in _MARKS.items() if mark in names)
        head = _OTHERS.get(kind) or next(marks, HEADS[0])
    return None if head is None else Tie(embedding, start + head)


def embedding_of(
    base: Mapping[str, TensorInfo], config: Mapping[str, Any] | None, start: str
) -> str | None:
    """The token embedding: the one matrix that is called so, or that has the vocabulary's rows."""
    found = [
        name
        for name, tensor in base.items()
        if name.startswith(start) and EMBEDDING.search(name) and len(tensor.shape) == 2
    ]
    if len(found) > 1:
        rows = vocabulary(config)
        found = [name for name in found if base[name].shape[0] == rows]
    return found[0] if len(found) == 1 else None


def may_share(base: Mapping[str, TensorInfo], name: str) -> bool:
    """Whether a weight that a base's file lacks may be its embedding's: a head's, or another's."""
    component, _, inner = name.rpartition("/")
    start = f"{component}/" if component else ""
    shares = inner in HEADS or SHARED.search(inner) or inner.endswith(_ENDINGS)
    return bool(shares) and embedding_of(base, None, start) is not None


def vocabulary(config: Mapping[str, Any] | None) -> int | None:
    """`vocab_size` of a configuration, or of the text model in it."""
    return _told(config, "vocab_size", int)


def _told(config: Mapping[str, Any] | None, field: str, kind: type[T]) -> T | None:
    for part in (config or {}, (config or {}).get("text_config")):
        if isinstance(part, dict) and isinstance(found := part.get(field), kind):
            return found
    return None


def is_tied(config: Mapping[str, Any] | None, tie: Tie, base: Collection[str]) -> bool | None:
    """Whether a configuration lets embedding and head share; None where it does not say.

    Without a word of it they share where the file has one of the two.
    """
    told = _told(config, "tie_word_embeddings", bool)
    return told if told is not None or config is None else tie.head not in base


def refuse_shared(source: str, tie: Tie, config: Mapping[str, Any] | None) -> None:
    """Raise MismatchError for a model whose layers share the embedding beyond the head."""
    kind = str((config or {}).get("model_type"))
    if tie.embedding.endswith("shared.weight") or "t5" in kind or kind == "switch_transformers":
        raise _shared(source, tie.embedding, kind)


def _shared(source: str, name: str, kind: str) -> MismatchError:
    return MismatchError(
        f"{source}: changes {name!r} or its head, which this kind of model ({kind}) shares among "
        "its parts; merge it with PEFT and give the full checkpoint"
    )


def refuse_inner(
    source: str,
    config: Mapping[str, Any] | None,
    changed: Collection[str],
    tensors: Collection[str],
) -> None:
    """Raise MismatchError for a changed embedding that a head within a part, or a part, shares.

    `tensors` are all of the merged model's, in which such may have one of its own.
    """
    parts = [config or {}, *(config or {}).values()]
    told = [part.get("tie_word_embeddings") for part in parts if isinstance(part, dict)]
    kind = str((config or {}).get("model_type"))
    embeddings = sorted(filter(EMBEDDING.search, changed))
    shared = [name for name in embeddings if name.endswith("shared.weight")]
    if any(name.endswith("embed_tokens.weight") for name in tensors):
        shared = []
    if True in told or False not in told:
        heads = [name for name in changed if f".{name}".endswith(_ENDINGS)]
        shared += [*embeddings, *heads] if kind in _MANY else []
        inner = kind in _INNER and not any(f".{name}".endswith(_ENDINGS) for name in tensors)
        shared += embeddings if inner else []
    if shared:
        raise _shared(source, shared[0], kind)


def refuse_half(
    source: str, tie: Tie, tensors: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]
) -> None:
    """Raise MismatchError for new rows of an embedding without those of its head, or its alone."""
    one, two = (tensors.get(name) for name in (tie.embedding, tie.head))
    before = base.get(tie.embedding)
    if one is not None and before is not None and one.shape[0] != before.shape[0]:
        two = _short_bias(tie, tensors, one.shape[0]) or two
    if one is None or two is None or before is None or one.shape[0] == two.shape[0]:
        return
    head_before = base.get(tie.head, before)
    new = [now for now, was in ((one, before), (two, head_before)) if now.shape[0] != was.shape[0]]
    if new:
        grown, other = (one, two) if new[0] is one else (two, one)
        raise MismatchError(
            f"{source}: has {grown.shape[0]} rows of {grown.name!r} and no new ones of "
            f"{other.name!r}, which has {other.shape[0]}: save the adapter with both, or merge it "
            "with PEFT and give the full checkpoint"
        )


def with_tied_biases(
    saved: Mapping[str, str], base: Mapping[str, TensorInfo], tensors: Mapping[str, TensorInfo]
) -> dict[str, str]:
    """What an adapter saves, a longer bias of BERT's head under its other name, too."""
    made = dict(saved)
    for name, inner in saved.items():
        other = base.get(f"{name.removesuffix('.decoder.bias')}.bias")
        if name.endswith(".decoder.bias") and other and other.shape != tensors[inner].shape:
            made[other.name] = inner
    return made


def _short_bias(tie: Tie, tensors: Mapping[str, TensorInfo], rows: int) -> TensorInfo | None:
    """A bias of the head, its own or of the module around it, that has not so many elements."""
    module = tie.head.removesuffix(".weight")
    names = (f"{module}.bias", f"{module.rpartition('.')[0]}.bias")
    found = (tensors[name] for name in names if name in tensors)
    return next((tensor for tensor in found if tensor.elements != rows), None)


def refuse_alone(source: str, tie: Tie, alone: Collection[str]) -> None:
    """Raise MismatchError for new rows of an embedding that was trained apart from its head."""
    if tie.embedding in alone:
        raise MismatchError(
            f"{source}: trained {tie.embedding!r}, with new rows, apart from {tie.head!r}, whose "
            "new rows it lacks: save the adapter with both, or merge it with PEFT and give the "
            "full checkpoint"
        )


def untold_tie(
    base: Mapping[str, TensorInfo], component: str, changed: Collection[str]
) -> tuple[str, ...]:
    """What to say of a head that may change with its embedding, where no configuration tells."""
    start = f"{component}/" if component else ""
    name = embedding_of(base, None, start)
    if name is None or name not in changed or find_tie(base, None, start) is not None:
        return ()
    text = f"changes {name!r}: a head that shares it changes too (the base has no config.json "
    return (f"{text}to tell)",)


def one_tensor(source: Source, first: str, second: str) -> bool:
    """Whether two names have equal bytes, or one of them is not there."""
    one, other = source.tensors.get(first), source.tensors.get(second)
    if one is None or other is None:
        return True
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    left, right = np.empty((2, min(one.nbytes, _COMPARED)), np.uint8)
    for start in range(0, one.nbytes, _COMPARED):
        count = min(_COMPARED, one.nbytes - start)
        source.read(first, start, left[:count])
        source.read(second, start, right[:count])
        if not np.array_equal(left[:count], right[:count]):
            return False
    return True


def refuse_misplaced(
    source: str, saved: Collection[str], base: Source, adapted: Collection[str]
) -> None:
    """Raise MismatchError for what an adapter saves where the base has it under another name.

    A head may be new, which lies beside the model; a bias without its weight, an embedding or
    output layer beside another, or a module within the model that is `adapted` is not.
    """
    ends = {".".join(name.rsplit(".", 2)[-2:]) for name in base.tensors}
    heads = any(name.rpartition("/")[2] in HEADS for name in base.tensors)
    bodies = {name.partition(".")[0] for name in adapted if name.count(".") > 1}
    for name in saved:
        module, _, leaf = name.rpartition(".")
        alone = leaf == "bias" and f"{module}.weight" not in saved
        twice = SHARED.search(name) and ".".join(name.rsplit(".", 2)[-2:]) in ends
        inner = name.rpartition("/")[2]
        second = inner in HEADS and heads
        inside = inner not in HEADS and inner.partition(".")[0] in bodies
        if name not in base.tensors and (alone or twice or second or inside):
            raise MismatchError(
                f"{source}: saves {name!r}, which the base ({base.source}) lacks (has it other "
                "names there?); merge it with PEFT and give the full checkpoint"
            )
