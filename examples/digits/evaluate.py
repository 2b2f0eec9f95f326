"""Print the accuracy of a checkpoint on the held-out images of one task.

    python evaluate.py CHECKPOINT TASK

The last line is a number from 0 to 1, so the command also serves `randes tune --evaluate`.
"""

import argparse
from pathlib import Path

import torch
from model import VisionTransformer
from safetensors.torch import load_file
from tasks import TASKS, evaluation_set


def accuracy(state_dict_path: Path, task: str) -> float:
    """The share of held-out images that a checkpoint classifies correctly."""
    model = VisionTransformer().eval()
    model.load_state_dict(load_file(state_dict_path))
    examples = evaluation_set(TASKS[task])
    with torch.inference_mode():
        right = model(examples.images).argmax(dim=1) == examples.labels
    return float(right.float().mean())


def main() -> None:
    """Measure the checkpoint and the task that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("task", choices=sorted(TASKS))
    options = parser.parse_args()
    print(f"{accuracy(options.checkpoint, options.task):.4f}")


if __name__ == "__main__":
    main()
