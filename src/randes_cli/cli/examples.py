"""Command lines that each help ends with; a test runs them all."""

from __future__ import annotations

#: What the words mean that every help uses.
WORDS = (
    "A task is one fine-tuned model in a bank, its delta what fine-tuning changed, a superposition "
    "the sum of all deltas, and λ what a delta is multiplied by on its way out (1, as a rule)."
)
EXAMPLES: dict[str, tuple[str, ...]] = {
    "pack": (
        "randes pack base.safetensors cars=ft1.safetensors dtd=ft2.safetensors -o b.randes",
        "randes pack base-folder cars=ft1-folder dtd=ft2-folder --keep 99% -o b.randes",
    ),
    "unpack": (
        "randes unpack b.randes cars -o cars.safetensors",
        "randes unpack b.randes --all -o models",
    ),
    "inspect": (
        "randes inspect b.randes",
        "randes inspect b.randes cars --by layer",
    ),
    "add": (
        "randes add b.randes svhn=ft3.safetensors",
        "randes add b.randes cars=ft3.safetensors --replace",
    ),
    "remove": ("randes remove b.randes cars",),
    "verify": (
        "randes verify b.randes",
        "randes verify b.randes --against cars=ft1.safetensors",
    ),
    "push": ("randes push b.randes org/name --private",),
    "diff": ("randes diff b.randes cars=ft1.safetensors",),
    "plot": ("randes plot b.randes --kind size -o size.svg",),
    "report": ("randes report b.randes -o report.html",),
    "seal": ("randes seal b.randes --bits 2 -o small.randes",),
    "convert": ("randes convert b.randes --max-shard-size 5GB -o cut.randes",),
    "tune": ("randes tune b.randes --evaluate 'python score.py {checkpoint} {task}'",),
    "evaluate": ("randes evaluate b.randes --evaluate 'python score.py {checkpoint} {task}'",),
    "serve": ("randes serve b.randes --port 8000",),
}
FIRST = tuple(EXAMPLES[name][0] for name in ("pack", "inspect", "unpack"))


def ending(*lines: str) -> str:
    """Lines below a help, each by itself."""
    return "\n\n".join(("For example:", *lines))
