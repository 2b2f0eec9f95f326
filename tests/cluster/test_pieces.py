"""One large shard is made by several workers, run by run, and no byte tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import add, pack, remove, seal
from randes_cli.build.crew.pieces import Item, cut, place_of
from randes_cli.build.jobs.jobs import Part
from randes_cli.build.jobs.work import Shared
from randes_cli.build.steps import Step
from randes_cli.core.share import Share
from randes_cli.files.bank.container import Container
from randes_cli.plan import Span, chunks
from randes_cli.specs import EditOptions, PackOptions, TaskInput, TensorInfo, Transform
from tests.cluster.conftest import RAY
from tests.life.models import ONE
from tests.shards.conftest import everything

#: Bytes that nothing here reaches.
WHOLE = 10**9


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of several chunks: superposed ones, some of a type, a resized one, exact ones."""
    folder = tmp_path_factory.mktemp("wide")
    random = np.random.default_rng(7)
    base = {f"h.{n}.w": random.standard_normal((1200, 1024), np.float32) for n in range(2)}
    base["wte"] = random.standard_normal((2100, 1024), np.float32)
    base["conv"] = random.standard_normal((1024, 128, 3, 3), np.float32)
    ids = np.arange(2**20 + 5)
    save_file({**base, "ids": ids}, folder / "base.safetensors")
    for number, name in enumerate(("a", "b", "c")):
        moved = {
            key: value + np.float32(0.01) * random.standard_normal(value.shape, np.float32)
            for key, value in base.items()
        }
        moved["wte"] = np.concatenate([moved["wte"], moved["wte"]])[: 2000 + 1200 * number]
        head = random.standard_normal((1100, 1024)).astype(np.float16)
        save_file({**moved, "ids": ids + number, "head": head}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def small_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a megabyte for each worker, so that every tensor of several chunks is cut."""
    monkeypatch.setattr("randes_cli.cluster.Cluster.share", lambda *_: 2**20)


def tasks(folder: Path, *names: str) -> list[TaskInput]:
    return [TaskInput(name, str(folder / f"{name}.safetensors")) for name in names]


@pytest.mark.parametrize(
    "chosen",
    [
        PackOptions(max_shard_size=WHOLE),
        PackOptions(transform=Transform.from_preset("srsf"), bits=8),
        PackOptions(max_shard_size=WHOLE, groups=2, share=2),
    ],
    ids=["one shard of each part", "one file, shuffled", "shares"],
)
def test_shards_in_pieces_are_those_of_one_machine(
    cluster: Any, wide: Path, tmp_path: Path, small_share: None, chosen: PackOptions
) -> None:
    told: dict[str, int] = {}

    def progress(phase: str, done: int, total: int) -> None:
        told[phase] = told.get(phase, 0) + done

    for run, name in ((ONE, "one.randes"), (RAY, "many.randes")):
        bank = tmp_path / name
        pack(wide / "base.safetensors", tasks(wide, "a", "b"), bank, chosen, run, progress=progress)
        add(bank, tasks(wide, "c"), EditOptions(), run)
        found = {"a": wide / "a.safetensors"}
        remove(bank, ["a"], EditOptions(), run, checkpoints=found)
    assert any(phase.startswith("joining on ") for phase in told)
    assert everything(tmp_path / "many.randes") == everything(tmp_path / "one.randes")
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.d/.*"))


def test_steps_that_become_coarser_make_the_shard_anew(
    cluster: Any, tmp_path: Path, small_share: None
) -> None:
    """A row that no sample looks at has deltas beyond the step's range."""
    random = np.random.default_rng(3)
    base = {f"h.{n}": random.standard_normal((1200, 1024), np.float32) for n in range(2)}
    save_file(base, tmp_path / "base.safetensors")
    moved = {k: v + 1e-5 * random.standard_normal(v.shape, np.float32) for k, v in base.items()}
    moved["h.1"][700, 3] += 900.0
    save_file(moved, tmp_path / "a.safetensors")
    chosen = PackOptions(max_shard_size=WHOLE)
    told = set()

    def progress(phase: str, done: int, total: int) -> None:
        told.add(phase.partition(" on ")[0])

    for run, name in ((ONE, "one.randes"), (RAY, "many.randes")):
        out = tmp_path / name
        pack(
            tmp_path / "base.safetensors", tasks(tmp_path, "a"), out, chosen, run, progress=progress
        )
    assert {"coarser steps", "joining"} <= told
    assert everything(tmp_path / "many.randes") == everything(tmp_path / "one.randes")
    assert not list(tmp_path.glob("*.d/.*"))


@pytest.mark.parametrize("size", [WHOLE, None], ids=["one shard of each part", "one file"])
def test_sealed_shards_in_pieces_are_those_of_one_machine(
    cluster: Any, tmp_path: Path, small_share: None, size: int | None
) -> None:
    """Codes of 2^23 elements come together: a wider tensor is cut between them."""
    random, told = np.random.default_rng(9), set[str]()
    base = {"w": random.standard_normal((8300, 1024), np.float32), "norm": np.ones(5, np.float32)}
    save_file(base, tmp_path / "base.safetensors")
    save_file({"w": base["w"][::-1].copy(), "norm": base["norm"]}, tmp_path / "a.safetensors")

    def progress(phase: str, done: int, total: int) -> None:
        told.add(phase.partition(" on ")[0])

    live, inputs = tmp_path / "live.randes", tasks(tmp_path, "a")
    pack(tmp_path / "base.safetensors", inputs, live, PackOptions(max_shard_size=size), ONE)
    for run, name in ((ONE, "one.randes"), (RAY, "many.randes")):
        seal(live, tmp_path / name, 3, run, progress=progress)
    assert {"measuring", "sealing", "joining"} <= told
    assert everything(tmp_path / "many.randes") == everything(tmp_path / "one.randes")
    assert not list(tmp_path.glob("*.d/.*"))


def test_runs_hold_every_chunk_once_and_about_as_many_bytes() -> None:
    items = [
        Item(TensorInfo("a", "F32", (1,)), 5, 1),
        Item(TensorInfo("b", "F32", (1,)), 100, 7),
        Item(TensorInfo("c", "F32", (1,)), 3, 1),
        Item(TensorInfo("d", "F32", (1,)), 400, 1),
        Item(TensorInfo("e", "F32", (1,)), 1, 1),
    ]
    found = [(piece.keys, piece.span) for piece in cut(items, 40)]
    assert found == [
        (("a",), Span()),
        (("b",), Span(0, 2)),
        (("b",), Span(2, 4)),
        (("b",), Span(4, None)),
        (("c",), Span()),
        (("d",), Span()),
        (("e",), Span()),
    ]


@pytest.mark.parametrize("every", [2, 4, 8])
def test_pieces_of_a_share_meet_and_together_check_every_chunk_of_it(every: int) -> None:
    """Its chunks are not those of the matrix, by which it is cut: ends lie within rows."""
    share = Share(5000, 1023, every, 1)
    tensor = TensorInfo("sum/1/w", "I16", share.shape)
    count = len(chunks(5000, 1023))
    pieces = cut([Item(tensor, 10**9, count, share=share)], 2 * 10**8)
    assert len(pieces) > 3 and all(piece.share == share for piece in pieces)
    container = Container()
    container.place(tensor)
    places = [place_of(piece, container) for piece in pieces]
    assert [place.start for place in places] == [0, *(place.stop for place in places[:-1])]
    assert places[-1].stop == tensor.nbytes
    part = Part(1, (), Step(-10, 16), True, share)
    checked = [n for piece in pieces for n, _ in Shared(tensor, part, piece.span).chunks()]
    assert set(checked) == set(range(len(chunks(*share.shape))))
    assert len(checked) <= len(chunks(*share.shape)) + len(pieces)
