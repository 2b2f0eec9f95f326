"""What a folder's weights are: one file, shards, a variant, components; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from randes_cli.errors import MissingError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from tests.files.folders import put, refused

PLAIN = (
    *("model.safetensors", "diffusion_pytorch_model.safetensors", "adapter_model.safetensors"),
    *("pytorch_model.safetensors", "open_clip_model.safetensors", "consolidated.safetensors"),
    *("weights.00.safetensors", "anything.st", "model.fp16.safetensors"),
    "model-00001-of-00001.safetensors",
)


def put_shards(folder: Path, stem: str, index: str, names: Iterable[str]) -> None:
    weights = {}
    for number, name in enumerate(names):
        file = f"{stem}-{number:05d}-of-00009.safetensors"
        put(folder / file, name)
        weights[name] = file
    (folder / index).write_text(json.dumps({"weight_map": weights}))


@pytest.mark.parametrize(
    ("file", "target"),
    [
        *((name, name) for name in PLAIN),
        ("my model.safetensors", "model.safetensors"),
        ("CON.safetensors", "model.safetensors"),
    ],
)
def test_a_folder_with_one_weight_file_is_that_file_and_keeps_its_name(
    file: str, target: str, tmp_path: Path
) -> None:
    put(tmp_path / file)
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.layout == {"": target}


def test_shards_of_a_variant_read_as_one(tmp_path: Path) -> None:
    index = "model.safetensors.index.fp16.json"
    put_shards(tmp_path, "model.fp16", index, ["a", "b", "c"])
    for source in (tmp_path, tmp_path / index):
        with open_checkpoint(str(source)) as checkpoint:
            assert sorted(checkpoint.tensors) == ["a", "b", "c"]


def test_shards_in_a_sub_folder_are_those_of_the_model(tmp_path: Path) -> None:
    put(tmp_path / "weights" / "model-00001-of-00002.safetensors", "a")
    put(tmp_path / "weights" / "more" / "model-00002-of-00002.safetensors", "b")
    shards = {"a": "weights/model-00001-of-00002.safetensors"}
    shards["b"] = "./weights/more/model-00002-of-00002.safetensors"
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    for source in (tmp_path, index):
        with open_checkpoint(str(source)) as checkpoint:
            assert sorted(checkpoint.tensors) == ["a", "b"]
            assert set(checkpoint.layout.values()) <= {"model.safetensors"}
            assert not checkpoint.left_out and not checkpoint.notes


def test_a_lone_variant_is_read_and_said(tmp_path: Path) -> None:
    put(tmp_path / "model.fp16.safetensors")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.notes == ("only the variant fp16 is there: read model.fp16.safetensors",)


def test_a_bare_file_has_no_layout_and_no_side_files(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with open_checkpoint(str(tmp_path / "model.safetensors")) as checkpoint:
        assert (checkpoint.layout, checkpoint.side_files) == ({}, {})


def test_a_pipeline_is_read_by_component(tmp_path: Path) -> None:
    index: dict[str, object] = {
        "_class_name": "P",
        "unet": ["diffusers", "U"],
        "text_encoder": ["transformers", "T"],
    }
    index |= {"scheduler": ["diffusers", "S"], "safety_checker": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    put(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", "conv.weight")
    put(tmp_path / "text_encoder" / "model.fp16.safetensors", "conv.weight")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    put(tmp_path / "all-in-one.safetensors", "ignored")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert sorted(checkpoint.tensors) == ["text_encoder/conv.weight", "unet/conv.weight"]
        assert checkpoint.layout == {
            "unet": "unet/diffusion_pytorch_model.safetensors",
            "text_encoder": "text_encoder/model.fp16.safetensors",
        }
        assert checkpoint.left_out == {"all-in-one.safetensors": "other weights"}
        assert sorted(checkpoint.side_files) == [
            "model_index.json",
            "scheduler/scheduler_config.json",
        ]


def test_a_sentence_model_with_a_dense_layer_is_read_by_module(tmp_path: Path) -> None:
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    put(tmp_path / "model.safetensors", "encoder.weight")
    put(tmp_path / "2_Dense" / "model.safetensors", "linear.weight")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert sorted(checkpoint.tensors) == ["2_Dense/linear.weight", "encoder.weight"]
        assert sorted(checkpoint.side_files) == ["1_Pooling/config.json", "modules.json"]


def test_what_a_trainer_leaves_beside_the_weights_is_no_weight(tmp_path: Path) -> None:
    put(tmp_path / "anything.safetensors")
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt"):
        (tmp_path / name).write_bytes(b"x")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


def test_a_folder_without_one_answer_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no safetensors file")
    put(tmp_path / "one.safetensors")
    put(tmp_path / "two.safetensors")
    refused(tmp_path, r"2 weight files \(one.safetensors, two.safetensors\); name one")
    put(tmp_path / "model.fp16.safetensors")
    put(tmp_path / "model.fp32.safetensors")
    refused(tmp_path, "variants fp16, fp32; name one")


def test_every_sub_folder_with_weights_is_a_component_named_or_not(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "U"]}))
    for place in ("unet", "unet_ema", "controlnet_1", "deep/er", "checkpoint-500"):
        put(tmp_path / place / "model.safetensors", "w")
    put(tmp_path / "lora" / "adapter_model.safetensors", "w.lora_A.weight")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        places = ("unet", "controlnet_1", "unet_ema", "deep/er")
        assert checkpoint.layout == {place: f"{place}/model.safetensors" for place in places}
        assert sorted(checkpoint.tensors) == sorted(f"{place}/w" for place in places)
        assert checkpoint.left_out == {
            "checkpoint-500/": "a checkpoint of its own, or the state of a training run",
            "lora/": "a model or an adapter of its own",
        }


def test_names_that_are_those_of_a_component_beside_them_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors", "encoder/kernel", "head")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert sorted(checkpoint.tensors) == ["encoder/kernel", "head"]
    put(tmp_path / "encoder" / "model.safetensors", "bias")
    refused(tmp_path, "'encoder/kernel' is called like one of the folder encoder/ beside it")


def test_a_router_has_weights_in_sub_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Normalize"}]))
    (tmp_path / "router_config.json").write_text("{}")
    for place in ("query_0_Transformer", "document_0_Transformer", "document_2_Dense"):
        put(tmp_path / place / "model.safetensors", "w")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert len(checkpoint.layout) == 3 and "" not in checkpoint.layout
    (tmp_path / "router_config.json").unlink()
    refused(tmp_path, "holds the folders")


def test_components_of_a_plain_folder_are_said(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors", "w")
    put(tmp_path / "speech" / "model.safetensors", "w")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.notes == ("the weights in speech/ are read as components, too",)


def test_shards_of_an_index_that_is_lost_are_refused_with_its_name(tmp_path: Path) -> None:
    put_shards(tmp_path, "model", "model.safetensors.index.json", ["a", "b", "c"])
    (tmp_path / "model.safetensors.index.json").unlink()
    refused(tmp_path, r"3 of 9 shards .*no index \(model\.safetensors\.index\.json\)")
    refused(tmp_path / "model-00000-of-00009.safetensors", "one of 9 shards; name the folder")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    refused(tmp_path, r"no index \(model\.safetensors\.index\.json\)")


def test_more_of_the_same_model_beside_its_weights_is_refused(tmp_path: Path) -> None:
    put_shards(tmp_path, "model", "model.safetensors.index.json", ["a", "b"])
    put(tmp_path / "model-00002-of-00003.safetensors", "c")
    refused(tmp_path, r"model-00002-of-00003\.safetensors: a shard that .* does not name")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    put(tmp_path / "model_1.safetensors", "a")
    refused(tmp_path, r"model_1\.safetensors: weights of a second model beside model\.safetensors")


def test_a_whole_file_goes_before_shards_and_variants_and_is_said(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors", "whole")
    put(tmp_path / "model.fp16.safetensors", "variant")
    put_shards(tmp_path, "model", "model.safetensors.index.json", ["shard"])
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["whole"]
        said, left_out = checkpoint.notes
        assert said.startswith("read model.safetensors and not the shards beside it")
        assert "model-00000-of-00009.safetensors (other weights)" in left_out


def test_a_whole_file_beside_an_index_of_itself_has_no_shards(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors", "whole")
    index = {"metadata": {}, "weight_map": {"whole": "model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.notes == (
            "left out: model.safetensors.index.json (an index of weight files)",
        )


def test_a_folder_of_checkpoints_names_them_in_their_order(tmp_path: Path) -> None:
    for step in (500, 1500, 1000):
        put(tmp_path / f"checkpoint-{step}" / "model.safetensors")
    refused(tmp_path, "holds the checkpoints checkpoint-500, checkpoint-1000, checkpoint-1500: na")
    put(tmp_path / "best" / "model.safetensors")
    refused(tmp_path, "holds the folders best, checkpoint-500")


def test_parts_of_many_processes_name_their_converter(tmp_path: Path) -> None:
    (tmp_path / "zero_to_fp32.py").write_text("")
    refused(tmp_path, "DeepSpeed's parts; make one model of them: python zero_to_fp32.py")
    (tmp_path / "zero_to_fp32.py").unlink()
    (tmp_path / "pytorch_model_fsdp_0").mkdir()
    (tmp_path / "pytorch_model_fsdp_0" / ".metadata").write_text("")
    refused(tmp_path, "FSDP's parts; make one model of them: accelerate merge-weights")
    for number in range(2):
        put(tmp_path / f"shard-0000{number}-model-00001-of-00001.safetensors")
    refused(tmp_path, "has 2 parts of one model, one for each process")


def test_weights_behind_a_link_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "secret.safetensors")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(
        tmp_path / "elsewhere" / "secret.safetensors"
    )
    refused(tmp_path / "model", r"model\.safetensors: a link that leads out of")


def test_links_into_the_hubs_cache_and_inside_the_folder_are_followed(tmp_path: Path) -> None:
    cache = tmp_path / "models--maker--model"
    put(cache / "blobs" / "0123")
    folder = cache / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to("../../blobs/0123")
    (folder / "config.json").write_text("{}")
    (folder / "same.json").symlink_to("config.json")
    with open_checkpoint(str(folder)) as checkpoint:
        assert sorted(checkpoint.side_files) == ["config.json", "same.json"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": "../model.safetensors"}, "bad file name"),
        ({"a": "/etc/passwd"}, "bad file name"),
        ({"a": ".."}, "bad file name"),
        ({"a": "x\0y"}, "bad file name"),
        ({"a": "a/../../b.safetensors"}, "bad file name"),
        ({"a": "a\\b"}, "bad file name"),
        ({"a": ""}, "bad file name"),
        ({"a": 3}, "bad file name"),
        ({"a": "gone.safetensors"}, "shard gone.safetensors is missing"),
        ({"b": "shard.safetensors"}, "lacks tensor 'b'"),
        ({"a": "shard.safetensors"}, "does not name tensor 'extra'"),
        ({}, "has no weight_map"),
    ],
)
def test_an_index_that_lies_is_refused(
    weights: dict[str, object], said: str, tmp_path: Path
) -> None:
    put(tmp_path / "shard.safetensors", "a", "extra")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weights}))
    refused(tmp_path, said)


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not found"):
        open_checkpoint(str(tmp_path / "nothing"))
