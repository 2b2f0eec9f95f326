"""Models run from banks on stores, servers and in shards as from a file here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import randes_cli
from randes_cli import Bank, PackOptions, Pool
from tests.live.many import TASKS, bank_of, options, pack_folders
from tests.live.test_from_bank import assert_same, unpacked
from tests.models import qwen3
from tests.store_server import Store
from tests.web_server import Web

FORMS: dict[str, PackOptions] = {
    "1 bit": options(bits=1),
    "2 bits, half of the elements": options(bits=2, groups=3, share=2),
    "8 bits, hankel": options("hankel", bits=8),
    "shards, 2 bits": options(max_shard_size=40_000, bits=2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    bank_of(qwen3, made)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_bank_opens_here_and_in_a_bucket(
    form: str, folder: Path, store: Store, tmp_path: Path
) -> None:
    bank = pack_folders(folder, FORMS[form])
    places = {"here": str(bank), "file": bank.as_uri()}
    store.put("b/bank.randes", bank.read_bytes())
    shards = bank.with_name(f"{bank.name}.d")
    for shard in sorted(shards.iterdir()) if shards.exists() and "shards" in form else []:
        store.put(f"b/{shards.name}/{shard.name}", shard.read_bytes())
    places["bucket"] = store.at("b/bank.randes")
    wanted = randes_cli.transformers.from_bank(bank, "sun").eval()
    assert_same(wanted, type(wanted).from_pretrained(unpacked(bank, "sun", tmp_path / "out")))
    for name, place in places.items():
        assert_same(randes_cli.transformers.from_bank(place, "sun"), wanted)
        model = randes_cli.transformers.from_bank(bank)
        with Pool(place, model, resident=name != "file") as pool, pool.use("sun"):
            assert_same(model, wanted)


def test_a_task_of_a_server_is_read_by_range_and_once(folder: Path, web: Web, store: Store) -> None:
    bank = pack_folders(folder, options(bits=4, groups=3))
    web.files["/bank.randes"] = bank.read_bytes()
    store.put("bank.randes", bank.read_bytes())
    near = randes_cli.transformers.from_bank(bank, "sun")
    store.forget()
    for place in (f"{web.url}/bank.randes", store.at("bank.randes")):
        assert_same(randes_cli.transformers.from_bank(place, "sun"), near)
    with Bank.open(bank) as opened:
        starts = opened.file.header.starts
        others = [key for key in starts if key.startswith(("sum/0/", "sum/2/"))]
        size = bank.stat().st_size - sum(opened.file.info(key).nbytes for key in others)
    assert web.sent["/bank.randes"] == store.bytes_sent("bank.randes") <= size
    model = randes_cli.transformers.from_bank(bank)
    with Pool(store.at("bank.randes"), model) as pool:
        for task in ("cars", "sun", "cars"):
            store.forget()
            with pool.use(task):
                assert_same(model, randes_cli.transformers.from_bank(bank, task))
    assert not store.requests


def test_rows_are_answered_from_a_bucket(folder: Path, store: Store) -> None:
    bank = pack_folders(folder, options(bits=2, groups=2))
    store.put("bank.randes", bank.read_bytes())
    ids = torch.arange(1, 25).reshape(3, 8)
    for hold in ("dense", "codes"):
        with torch.inference_mode():
            found, wanted = (
                randes_cli.attach(randes_cli.transformers.from_bank(bank), place, hold=hold)(
                    input_ids=ids, adapter_names=list(TASKS)
                ).logits
                for place in (store.at("bank.randes"), bank)
            )
        assert torch.equal(found, wanted)
