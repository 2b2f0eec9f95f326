"""What a manifest records of a sealed group, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from randes_cli.core.levels import SEAL_BITS
from randes_cli.files.json_fields import Fields

#: How the codes and scales of a sealed group lie in the bank; `docs/sealed.md` has the bytes.
SEAL_LAYOUT = "levels/1"


@dataclass(frozen=True, slots=True)
class SealRecord:
    """A group whose superposition was cut to `bits`; it is read-only."""

    bits: int
    layout: str = SEAL_LAYOUT
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"bits": self.bits, "layout": self.layout, **self.extra}

    @classmethod
    def from_json(cls, fields: Fields) -> SealRecord:
        """Read and check its object. Raises BankDamaged naming the field."""
        bits, layout = fields.get("bits", int), fields.line("layout")
        if bits not in SEAL_BITS:
            raise fields.fail("bits", f"is {str(bits)[:30]}")
        if layout != SEAL_LAYOUT:
            raise fields.fail("layout", f"is {layout[:60]!r}, which this version does not know")
        return cls(bits, layout, fields.rest())
