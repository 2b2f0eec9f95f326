"""Which names of side files travel."""

from __future__ import annotations

import pytest

from randes_cli.files.side_files import is_side_file


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/tool_use.jinja",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "open_clip_config.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "1_Pooling/config.json",
        "id2label.json",
        "LICENSE",
        "README.md",
        "USE_POLICY.md",
        "params.json",
        "tokenizer.model.v3",
        "bpe_simple_vocab_16e6.txt.gz",
        "hyperparams.yaml",
        "qwen.tiktoken",
        "artifact.metadata",
        "adapter_config.json.bak",
        "speaker_embeddings/v2/en_semantic_prompt.npy",
        "a/b/config.json",
    ],
)
def test_what_makes_weights_loadable_travels(name: str) -> None:
    assert is_side_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../config.json",
        "/config.json",
        "a/.b/config.json",
        "a/b/c/d/e/f/config.json",
        "nul.json",
        "./config.json",
        "..\\config.json",
        "unet/../config.json",
        ".ssh/config.json",
        "config.json\0",
        "config.json\n",
        "con fig.json",
        "C:config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "train.sh",
        "model_head.pkl",
        "optimizer.pt",
        "model.safetensors.index.json",
        "onnx/model.onnx",
        "imgs/logo.png",
        ".env",
        "x" * 120 + "/config.json",
        "config.",
        "a./config.json",
    ],
)
def test_other_names_do_not(name: str) -> None:
    assert not is_side_file(name)
