"""Single rows of an embedding that an adapter replaces (trainable tokens)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from randes_cli.core.arrays import F64, Raw
from randes_cli.core.lora import store
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.header import parse_json
from randes_cli.files.lora.config import LoraConfig
from randes_cli.files.lora.ties import Tie, vocabulary
from randes_cli.files.lora.view import BASE_LAYER, Part
from randes_cli.files.side_files import SideFile
from randes_cli.specs import ITEM_SIZE, TensorInfo


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that take the place of a weight's, in its dtype."""

    places: tuple[int, ...]
    data: Raw

    def put(self, start: int, out: Raw) -> None:
        """Write what of them lies in `out`, the weight's bytes from byte `start` on."""
        size = len(self.data) // max(1, len(self.places))
        for number, place in enumerate(self.places):
            first, last = max(start, place * size), min(start + len(out), (place + 1) * size)
            if first < last:
                skip = (number - place) * size
                out[first - start : last - start] = self.data[first + skip : last + skip]


def grown_below(
    part: Part,
    before: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
    copied: Mapping[str, str],
) -> dict[str, str]:
    """Embeddings below trained rows that have another number of rows than the base's.

    `before` are tensors of the adapter by their names in the model, `copied` as in `placed_rows`.
    """
    made = {}
    for name, inner in before.items():
        ours = part.rename(name)
        twin = part.base.get(copied.get(ours, ours))
        if twin is not None and twin.shape[:1] != tensors[inner].shape[:1]:
            made[ours] = inner
    return made


def placed_rows(
    source: str,
    part: Part,
    config: LoraConfig,
    tokens: Mapping[str, str],
    shapes: Mapping[str, TensorInfo],
    values: Callable[[str], F64],
    copied: Mapping[str, str],
) -> dict[str, Rows]:
    """Rows by the base's tensor. `copied` are names of it that the base's file lacks.

    Raises CheckpointError, MismatchError.
    """
    made: dict[str, Rows] = {}
    for module, name in tokens.items():
        weight = part.rename(f"{module.replace(BASE_LAYER, '')}.weight")
        if weight in copied and copied[weight] in {
            part.rename(f"{other.replace(BASE_LAYER, '')}.weight") for other in tokens
        }:
            continue  # the head of one tensor, whose rows are the embedding's
        twin, rows = part.base.get(weight), config.rows(module)
        if twin is None:
            raise MismatchError(f"{source}: trains tokens of {module}, which the base lacks")
        shape = shapes[name].shape
        if rows is None or shape != (len(rows), *twin.shape[1:]) or len(twin.shape) != 2:
            raise CheckpointError(
                f"{source}: {name!r} has shape {list(shape)}, and its configuration says "
                f"{len(rows or ())} rows of {module}"
            )
        if rows and max(rows) >= twin.shape[0]:
            raise MismatchError(
                f"{source}: trains token {max(rows)} of {module}, of which the base has "
                f"{twin.shape[0]}"
            )
        made[weight] = Rows(rows, _stored(source, name, values(name), twin.dtype))
    return made


def _stored(source: str, name: str, values: F64, dtype: str) -> Raw:
    """An adapter's values in the base's dtype. Raises CheckpointError where they pass its range."""
    data = np.empty(len(values) * ITEM_SIZE[dtype], np.uint8)
    if store(values, dtype, data):
        raise CheckpointError(f"{source}: {name!r} passes the range of the base's dtype")
    return data


def piece_rows(
    source: str,
    part: Part,
    saved: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
    values: Callable[[str], F64],
) -> dict[str, Rows]:
    """Rows by the base's tensor of what an adapter saves and the base has as a piece of more.

    Raises CheckpointError, MismatchError.
    """
    made: dict[str, Rows] = {}
    for name, inner in saved.items():
        piece, ours, shape = part.piece(name), part.rename(name), tensors[inner].shape
        if piece is None:
            continue
        twin = part.base[ours]
        first, last = piece.rows(twin.shape[0])
        if shape != (last - first, *twin.shape[1:]):
            raise MismatchError(
                f"{source}: {inner!r} has shape {list(shape)}, the base's {ours!r} "
                f"{list(twin.shape)}, of which it is one of {piece.pieces} pieces"
            )
        data = _stored(source, inner, values(inner), twin.dtype)
        before = made.get(ours, Rows((), data[:0]))
        places = (*before.places, *range(first, last))
        made[ours] = Rows(places, np.concatenate([before.data, data]))
    return made


def refuse_both(source: str, rows: Mapping[str, Rows], others: Collection[str]) -> None:
    """Raise MismatchError where single rows and more of one tensor are adapted."""
    both = sorted(rows.keys() & set(others))
    if both:
        raise MismatchError(
            f"{source}: trains tokens of {both[0]!r} and adapts it, too (merge it with PEFT and "
            "give the full checkpoint)"
        )


def shared_rows(
    source: str, tie: Tie, rows: Mapping[str, Rows], tensors: Mapping[str, TensorInfo]
) -> dict[str, Rows]:
    """Rows of the other name of a tensor that the base ties: those of the embedding.

    Raises MismatchError where only the head, or each its own, has some.
    """
    first, second = rows.get(tie.embedding), rows.get(tie.head)
    if second is not None and (
        first is None
        or first.places != second.places
        or not np.array_equal(first.data, second.data)
    ):
        raise MismatchError(
            f"{source}: trains tokens of {tie.head!r} alone, which the base ties to another name; "
            "untie the base first"
        )
    return {tie.head: first} if first is not None and tie.head in tensors else {}


def tokens_without_rows(
    files: Mapping[str, SideFile], config: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """What to say of an adapter whose tokenizer has tokens beyond the merged model's embedding."""
    rows, last = vocabulary(config), -1
    for name in files.keys() & {"added_tokens.json", "tokenizer.json"}:
        with suppress(ValueError):  # what is no JSON says nothing
            found = parse_json(files[name].content(), strict=False)
            found = found.get("added_tokens", found) if isinstance(found, dict) else ()
            if isinstance(found, list):  # of a whole tokenizer
                found = {n: one.get("id") for n, one in enumerate(found) if isinstance(one, dict)}
            ids = found.values() if isinstance(found, dict) else ()
            last = max([last, *(one for one in ids if isinstance(one, int))])
    if rows is None or last < rows:
        return ()
    text = f"its tokenizer has the token {last}, and the merged embedding {rows} rows: those of new"
    return (f"{text} tokens were not saved with the adapter (save_embedding_layers=True does)",)
