"""What each type of tensor costs where only it is superposed, the rest being exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from methods import FIXED, Method, Models, Packed
from superposition import Mixer

from randes_cli.specs import Signs, Transform

#: Types by name, the first that fits; what fits none is a weight of another kind.
KINDS: Mapping[str, re.Pattern[str]] = {
    "embeddings": re.compile(r"embed|cls_token|wte|wpe|stem"),
    "norms": re.compile(r"norm|ln_|LayerNorm", re.IGNORECASE),
    "biases": re.compile(r"bias$"),
    "output head": re.compile(r"^head|lm_head"),
    "attention": re.compile(r"attn|attention"),
    "other weights": re.compile(""),
}

#: Embeddings and output heads.
ENDS = re.compile("|".join(KINDS[kind].pattern for kind in ("embeddings", "output head")))


def kind_of(name: str) -> str:
    """The type of a tensor."""
    return next(kind for kind, pattern in KINDS.items() if pattern.search(name))


def superposed_alone(kind: str) -> Callable[[Models, int], Packed]:
    """One type superposed in float32, two-sided; bytes are those of its elements, in float32."""

    def build(models: Models, seed: int) -> Packed:
        names = [name for name in models.names if kind_of(name) == kind]
        shapes = {name: models.shapes[name] for name in names}
        if not names:
            return Packed(
                models.base_bytes, lambda task, knob: models.state(models.deltas[task], 1)
            )
        mixer = Mixer(shapes, Transform(signs=Signs.two_sided), seed)
        parts = [{name: delta[name] for name in names} for delta in models.deltas.values()]
        total = mixer.superpose(list(enumerate(parts)))

        def restore(task: str, knob: float) -> Mapping[str, object]:
            back = mixer.backward(total, models.tasks.index(task))
            return models.state({**models.deltas[task], **back}, 1.0)

        elements = sum(models.deltas[models.tasks[0]][name].size for name in names)
        return Packed(models.base_bytes + 4 * elements, restore)

    return build


def rows() -> list[Method]:
    """A method for each type."""
    return [
        Method(f"only {kind}", "kinds", superposed_alone(kind), FIXED, seeds=True) for kind in KINDS
    ]
