"""Banks of LoRA adapters, and adapters merged into full tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.cli.render.packed import adapter_line
from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import BaseStorage, EditOptions, PackOptions, RunOptions, TaskInput
from tests.adapters import llama, randomize, t5
from tests.models import unet

MERGE = PackOptions(merge_adapters=True)
KEEP = PackOptions(adapters=True)
IDS = torch.arange(1, 7).reshape(1, 6)


MODELS = {"llama": (llama, ["q_proj", "v_proj"]), "t5": (t5, ["q", "v"])}


def save_base(folder: Path, kind: str = "llama") -> None:
    torch.manual_seed(0)
    MODELS[kind][0]().save_pretrained(folder / "base")


def save_adapter(folder: Path, name: str, seed: int, kind: str = "llama", **options: Any) -> None:
    make, targets = MODELS[kind]
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "target_modules": targets, **options})
    wrapped = get_peft_model(make(), config)
    randomize(wrapped)
    wrapped.save_pretrained(folder / name)


def logits(model: Any) -> torch.Tensor:
    inputs = {"input_ids": IDS}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = IDS[:, :3]
    with torch.no_grad():
        found = model.eval()(**inputs).logits
    assert isinstance(found, torch.Tensor)
    return found


def inputs(folder: Path, *names: str) -> list[TaskInput]:
    return [TaskInput(name, str(folder / name)) for name in names]


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"trainable_token_indices": [1, 3]}])
@pytest.mark.parametrize("kind", MODELS)
def test_adapters_of_a_bank_load_with_peft(kind: str, options: Any, tmp_path: Path) -> None:
    save_base(tmp_path, kind)
    for seed, name in enumerate(["cars", "dtd"]):
        save_adapter(tmp_path, name, seed, kind, **options)
    base = str(tmp_path / "base")
    pack(base, inputs(tmp_path, "cars"), tmp_path / "one.randes", KEEP)
    pack(base, inputs(tmp_path, "cars", "dtd"), tmp_path / "two.randes", KEEP)
    unpack(tmp_path / "one.randes", ["cars"], tmp_path / "alone", UnpackOptions(), RunOptions())
    unpack(tmp_path / "two.randes", None, tmp_path / "both", UnpackOptions(), RunOptions())

    load = type(MODELS[kind][0]()).from_pretrained
    plain = logits(load(base))
    wanted = logits(PeftModel.from_pretrained(load(base), tmp_path / "cars"))
    alone = logits(PeftModel.from_pretrained(load(base), tmp_path / "alone"))
    assert (wanted - plain).abs().max() > 0
    assert (alone - wanted).abs().max() < 0.05 * (wanted - plain).abs().max()
    for name in ("cars", "dtd"):
        PeftModel.from_pretrained(load(base), tmp_path / "both" / name)
        assert (tmp_path / "both" / name / "adapter_config.json").read_bytes() == (
            tmp_path / name / "adapter_config.json"
        ).read_bytes()


def test_a_bank_of_adapters_keeps_no_base_but_its_name(tmp_path: Path) -> None:
    save_adapter(tmp_path, "cars", 1)
    save_adapter(tmp_path, "dtd", 2)
    path = tmp_path / "cars" / "adapter_config.json"
    named = {**json.loads(path.read_text()), "base_model_name_or_path": "org/model"}
    path.write_text(json.dumps(named))
    pack(None, inputs(tmp_path, "cars", "dtd"), tmp_path / "bank.randes")
    with BankFile(tmp_path / "bank.randes") as bank:
        assert bank.manifest.base.storage is BaseStorage.zero
        assert bank.manifest.base.source == "org/model"
        assert not [key for key in bank.header.tensors if key.startswith("base/")]


def test_a_bank_of_adapters_says_what_noise_in_both_factors_does(tmp_path: Path) -> None:
    for seed in range(4):
        save_adapter(tmp_path, f"t{seed}", seed)
    tasks = [TaskInput(f"t{seed}", str(tmp_path / f"t{seed}")) for seed in range(4)]
    report = pack(None, tasks, tmp_path / "four.randes")
    cosine = sum(task.predicted_cosine for task in report.tasks) / 4
    assert 0.4 < cosine < 0.6
    assert report.advice is not None
    assert "--merge-adapters" in report.advice
    assert {task.verdict for task in report.tasks} == {"an unknown share"}
    assert not report.alternatives  # nor does --fit know what factors keep
    with BankFile(tmp_path / "four.randes") as bank:
        told = describe(bank)
    assert told.ratio_to_base is None
    assert told.base_name == "a base that the adapters do not name"
    alone = pack(None, tasks[:1], tmp_path / "one.randes")
    assert alone.advice is None


@pytest.mark.parametrize("bits", [4, 2])
def test_factors_too_thin_for_few_bits_are_refused_before_anything_is_written(
    bits: int, tmp_path: Path
) -> None:
    save_adapter(tmp_path, "a", 0)
    with pytest.raises(UsageError, match="wide enough"):
        pack(
            None,
            [TaskInput("a", str(tmp_path / "a"))],
            tmp_path / "a.randes",
            PackOptions(bits=bits),
        )
    assert not list(tmp_path.glob("*randes*"))


def test_saved_heads_of_adapters_are_kept_exactly(tmp_path: Path) -> None:
    save_adapter(tmp_path, "cars", 1, modules_to_save=["lm_head"])
    save_adapter(tmp_path, "dtd", 2)
    pack(None, inputs(tmp_path, "cars", "dtd"), tmp_path / "bank.randes")
    unpack(tmp_path / "bank.randes", ["cars"], tmp_path / "out", UnpackOptions(), RunOptions())
    name = "base_model.model.lm_head.weight"
    back = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert torch.equal(back[name], load_file(tmp_path / "cars" / "adapter_model.safetensors")[name])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"r": 8}, "has rank 8, not 4, at model.layers.0.self_attn.q_proj"),
        ({"target_modules": ["q_proj", "k_proj"]}, "also targets .*k_proj and does not .*v_proj"),
    ],
)
def test_adapters_that_disagree_are_refused_with_the_difference(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    save_adapter(tmp_path, "cars", 1)
    save_adapter(tmp_path, "dtd", 2, **options)
    with pytest.raises(MismatchError, match=rf"dtd: {said}, unlike \S*cars; the adapters"):
        pack(None, inputs(tmp_path, "cars", "dtd"), tmp_path / "bank.randes")


def test_an_adapter_beside_a_full_fine_tune_is_not_kept_an_adapter(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 1)
    tasks = [*inputs(tmp_path, "cars"), TaskInput("full", str(tmp_path / "base"))]
    with pytest.raises(UsageError, match="base: no LoRA adapter; --adapters is for adapters alone"):
        pack(str(tmp_path / "base"), tasks, tmp_path / "bank.randes", KEEP)


def save_unet(folder: Path) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet().save_pretrained(folder / "base")
    for seed, name in enumerate(["cars", "late"]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(
            UNet2DConditionModel.from_pretrained(folder / "base"),
            LoraConfig(r=2, target_modules=["to_q", "to_k"]),
        )
        randomize(wrapped)
        wrapped.save_pretrained(folder / name)
    return UNet2DConditionModel


def test_a_merged_adapter_has_the_bases_layout_when_packed_and_when_added(tmp_path: Path) -> None:
    opener = save_unet(tmp_path)
    bank = tmp_path / "bank.randes"
    pack(str(tmp_path / "base"), inputs(tmp_path, "cars"), bank, MERGE)
    edited = add(bank, inputs(tmp_path, "late"), EditOptions(merge_adapters=True))
    assert (edited.adapters, edited.merged) == ("merged", 1)
    assert "adapters, merged into the base" in adapter_line(edited, 1)[0].plain
    unpack(bank, None, tmp_path / "out", UnpackOptions(), RunOptions())
    for name in ("cars", "late"):
        assert sorted(p.name for p in (tmp_path / "out" / name).iterdir()) == [
            "README.md",
            "config.json",
            "diffusion_pytorch_model.safetensors",
        ]
        opener.from_pretrained(tmp_path / "out" / name)


def test_a_merged_adapter_with_new_tokens_and_labels_opens_when_packed_and_when_added(
    tmp_path: Path,
) -> None:
    save_base(tmp_path)
    for seed, name in enumerate(["cars", "late"]):
        torch.manual_seed(seed)
        model = tf.LlamaForCausalLM.from_pretrained(tmp_path / "base")
        model.resize_token_embeddings(70)
        save = ["embed_tokens", "lm_head"]
        config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=save)
        get_peft_model(model, config).save_pretrained(tmp_path / name)
    bank = tmp_path / "bank.randes"
    report = pack(str(tmp_path / "base"), inputs(tmp_path, "cars"), bank, MERGE)
    assert "config.json: vocab_size is 70, as the weights have it" in report.tasks[0].notes
    add(bank, inputs(tmp_path, "late"), EditOptions(merge_adapters=True))
    unpack(bank, None, tmp_path / "out", UnpackOptions(), RunOptions())
    for name in ("cars", "late"):
        opened = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out" / name)
        assert opened.get_input_embeddings().weight.shape[0] == 70


def test_a_base_is_needed_where_tasks_are_full_checkpoints(tmp_path: Path) -> None:
    save_base(tmp_path)
    with pytest.raises(UsageError, match="name the base"):
        pack(None, inputs(tmp_path, "base"), tmp_path / "bank.randes")


def test_merged_adapters_and_full_fine_tunes_share_a_bank(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 1)
    full = llama()
    full.load_state_dict(tf.LlamaForCausalLM.from_pretrained(tmp_path / "base").state_dict())
    with torch.no_grad():
        full.model.layers[0].mlp.up_proj.weight += 0.01
    full.save_pretrained(tmp_path / "full")
    base = str(tmp_path / "base")
    report = pack(base, inputs(tmp_path, "cars", "full"), tmp_path / "bank.randes", MERGE)
    assert report.tasks[0].unchanged == 21 - 4
    assert "merged 4 LoRA updates" in report.tasks[0].notes[-1]
    unpack(tmp_path / "bank.randes", None, tmp_path / "out", UnpackOptions(), RunOptions())
    # Not one tensor is changed by both, so each comes back as if it were alone.
    merged = PeftModel.from_pretrained(
        tf.LlamaForCausalLM.from_pretrained(base), tmp_path / "cars"
    ).merge_and_unload()
    plain = logits(tf.LlamaForCausalLM.from_pretrained(base))
    for wanted, name in ((merged, "cars"), (full, "full")):
        back, found = tf.LlamaForCausalLM.from_pretrained(
            tmp_path / "out" / name, output_loading_info=True
        )
        assert not any(found.values()), found
        effect = (logits(wanted) - plain).abs().max()
        assert (logits(back) - logits(wanted)).abs().max() < 0.05 * effect
    assert not (tmp_path / "out" / "cars" / "adapter_config.json").exists()


def test_merging_gives_the_same_bank_whatever_the_strips_and_threads(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 1)
    made = []
    for threads, strip in ((1, None), (2, 100), (7, 7)):
        out = tmp_path / "bank.randes"
        run = RunOptions(threads=threads, strip_elements=strip)
        pack(str(tmp_path / "base"), inputs(tmp_path, "cars"), out, MERGE, run, force=True)
        made.append(out.read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("merge", [False, True], ids=["adapters", "merged"])
def test_adding_and_removing_an_adapter_restores_the_bank(merge: bool, tmp_path: Path) -> None:
    save_base(tmp_path)
    for seed, name in enumerate(["cars", "dtd"]):
        save_adapter(tmp_path, name, seed, modules_to_save=["lm_head"])
    bank = tmp_path / "bank.randes"
    base = str(tmp_path / "base")
    pack(base, inputs(tmp_path, "cars"), bank, MERGE if merge else KEEP)

    def content() -> dict[str, bytes]:
        with BankFile(bank) as file:
            kept = ("sum/", "own/", "files/", "base/")
            return {
                key: file.read_whole(key).tobytes()
                for key in file.header.tensors
                if key.startswith(kept)
            }

    before = content()
    add(bank, inputs(tmp_path, "dtd"), EditOptions(merge_adapters=merge))
    unpack(bank, ["dtd"], tmp_path / "out", UnpackOptions(), RunOptions())
    stem, head = ("model", "lm_head.weight")
    if not merge:
        stem, head = "adapter_model", "base_model.model.lm_head.weight"
    back = load_file(tmp_path / "out" / f"{stem}.safetensors")
    saved = load_file(tmp_path / "dtd" / "adapter_model.safetensors")
    wanted = saved["base_model.model.lm_head.weight"]
    assert torch.allclose(back[head], wanted, atol=0.0 if not merge else 0.3)
    remove(bank, ["dtd"])
    after = content()
    assert {k: v for k, v in after.items() if any(v) or k in before} == before
