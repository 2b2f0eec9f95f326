"""Asks several fine-tunes of one server the same, with OpenAI's own client.

pip install openai
python examples/serve/client.py http://127.0.0.1:8000 "What is the sea?" [MODEL …]
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI


def main() -> None:
    """Stream the first model's answer, then ask all of them at once: one batch on the server."""
    address, prompt, *models = sys.argv[1:]
    key = os.environ.get("RANDES_API_KEY", "none")
    client = OpenAI(base_url=f"{address}/v1", api_key=key)
    models = models or [model.id for model in client.models.list()]

    for chunk in client.completions.create(
        model=models[0], prompt=prompt, max_tokens=40, temperature=0, stream=True
    ):
        print(chunk.choices[0].text, end="", flush=True)
    print()

    def ask(model: str) -> str:
        made = client.completions.create(model=model, prompt=prompt, max_tokens=40, temperature=0)
        return made.choices[0].text

    with ThreadPoolExecutor() as threads:
        for model, text in zip(models, threads.map(ask, models), strict=True):
            print(f"{model}: {text!a}")


if __name__ == "__main__":
    main()
