"""The clients of examples/serve get the answers of each task's own model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from randes_cli.server.service import Service
from tests.server.service import Alone

FOLDER = Path(__file__).parents[2] / "examples" / "serve"


def test_openais_client_asks_all_models_at_once(service: Service, alone: Alone) -> None:
    command = [sys.executable, str(FOLDER / "client.py"), service.address, "sea"]
    made = subprocess.run(
        [*command, "task-1", "task-2"], capture_output=True, check=True, encoding="utf-8"
    )
    *first, one, two = made.stdout.splitlines()
    assert one == f"task-1: {alone.text('task-1', 'sea', 40)!a}"
    assert two == f"task-2: {alone.text('task-2', 'sea', 40)!a}"
    assert first


def test_curl_streams_a_chat(service: Service, alone: Alone) -> None:
    if shutil.which("curl") is None:
        return
    command = ["bash", str(FOLDER / "ask.sh"), service.address, "task-3"]
    made = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    assert json.loads(made.splitlines()[0])["id"] == "task-3"
    events = [line[6:] for line in made.splitlines() if line.startswith("data: {")]
    text = "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events)
    assert text == alone.chat("task-3", "What is the sea?", 40)
    assert made.rstrip().endswith("data: [DONE]")
