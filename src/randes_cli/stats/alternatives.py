"""Which of a bank's choices to take: within a size, for a quality, and what to say of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from randes_cli.core.prediction.quality import mean_kept, noise_of, wanted
from randes_cli.core.prediction.verdict import percent
from randes_cli.errors import UsageError, shell_word
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import kind_bytes, sum_key, sum_keys
from randes_cli.files.hub.ref import is_bank_there
from randes_cli.files.location import OBJECT_STORES
from randes_cli.limits import parse_size
from randes_cli.reports import Alternative, TaskSummary
from randes_cli.specs import once
from randes_cli.stats.frontier import DIGITS, group_choices, marked, present, weigh_all
from randes_cli.stats.lengths import bank_lengths, sealed_bits
from randes_cli.stats.outline import Outline
from randes_cli.stats.stored import Statistics
from randes_cli.stats.summaries import mean_cosine

#: Plain numbers below it are ratios to the base, from it on they are bytes.
_MOST_RATIO = 1000
#: Families that want λ so far apart leave it to `tune`.
_APART = 0.3
#: A choice is worth telling of that keeps so much more of the gain, or as much but for so little
#: and saves this share of the bytes.
_BETTER, _AS_GOOD, _SAVES = 0.005, 0.005, 0.05


def alternatives(
    bank: BankFile, statistics: Statistics, tasks: Sequence[TaskSummary]
) -> tuple[Alternative, ...]:
    """Other bits, groups and shares for the tasks of a bank at hand, smallest first."""
    manifest = bank.manifest
    count, groups = len(manifest.tasks), manifest.groups
    keys, prefix = sum_keys(bank.header.tensors), sum_key(0, "")
    if groups == 1:
        names = [key[len(prefix) :] for key in keys]
    else:
        names = list(dict.fromkeys(key.split("/", 2)[2] for key in keys))
    held = once(kind_bytes, bank.header.tensors)
    lengths = bank_lengths(manifest, statistics.known)
    outline = Outline(
        manifest.base.tensors,
        names,
        lengths,
        [task.index for task in manifest.tasks],
        manifest.capacity,
        bank.size - held.get("sum", 0) - held.get("scale", 0),
        [name for name, bits in manifest.widths.items() if bits == 16],
    )
    used = {task.group for task in manifest.tasks} | {group for _, group in manifest.forgotten}
    cut = sealed_bits(manifest)
    sealed = {cut.get(group, manifest.bits) for group in used} or {manifest.bits}
    shares = {manifest.shares.get(group, 1) for group in range(groups)}
    if len(sealed) == len(shares) == 1:
        outline = outline.with_size(groups, min(sealed), min(shares), bank.size)
    kept = mean_kept(noise_of(lengths))
    cosine = mean_cosine(tasks)
    return marked(
        present(one, bank.size, kept, cosine)
        if one.groups == groups and sealed == {one.bits} and shares == {one.share}
        else one
        for one in weigh_all(outline, group_choices(count, groups))
    )


def parse_limit(text: str, base_bytes: int) -> int:
    """Most bytes of a bank: ``500MB``, or a ratio to the base as ``1.1``. Raises UsageError."""
    try:
        number = float(text.strip().removesuffix("x").removesuffix("×"))
    except ValueError:
        return parse_size(text)
    return int(number * base_bytes) if 0 < number < _MOST_RATIO else parse_size(text)


def corrected(
    choices: Sequence[Alternative], best: Alternative, found: Alternative
) -> tuple[Alternative, ...]:
    """The choices with one of them as a trial `found` it; others as narrow lose as much more."""
    more = (1.0 - found.kept) / (1.0 - best.kept) if best.kept < 1 else 1.0

    def again(one: Alternative) -> Alternative:
        if one is best:
            return found
        if (one.bits, one.share) != (best.bits, best.share) or more <= 1:
            return one
        kept, low, high = (
            1 - min(1, more * (1 - k)) for k in (one.kept, one.kept_low, one.kept_high)
        )
        return replace(one, kept=kept, kept_low=low, kept_high=high)

    return tuple(map(again, choices))


def best_fit(choices: Sequence[Alternative], limit: int) -> Alternative:
    """The choice within `limit` bytes that is predicted to keep most of the gain.

    Of choices that keep as much the smallest. Raises UsageError where nothing fits.
    """
    inside = [one for one in choices if one.bank_bytes <= limit]
    if not inside:
        least = min(choices, key=lambda one: one.bank_bytes)
        raise UsageError(
            f"--fit: the smallest bank takes {least.bank_bytes:,} bytes ({told(least)}), more "
            f"than {limit:,}"
        )
    return max(inside, key=lambda one: (round(one.kept, DIGITS), -one.bank_bytes))


def parse_keep(text: str) -> float:
    """A share of the gain over the base, above 0 to 1: ``99%`` or ``0.99``. Raises UsageError."""
    plain = text.strip()
    try:
        number = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        number = -1.0
    if not 0 < number <= 1:
        raise UsageError(f"--keep takes a share of the gain, as 99% or 0.99, not {text!r}")
    return round(number, 12)  # 99.9 / 100 is a little more than 0.999


def smallest_keeping(choices: Sequence[Alternative], share: float) -> Alternative:
    """The smallest choice that is predicted to keep this share of the gain.

    Raises UsageError where none is.
    """
    enough = [one for one in choices if round(one.kept, DIGITS) >= share]
    if not enough:
        most = max(choices, key=lambda one: one.kept)
        raise UsageError(
            f"--keep: none is predicted to keep {percent(share, 2)} of the gain; {told(most)} "
            f"would keep {percent(most.kept, 2)}"
        )
    return min(enough, key=lambda one: (one.bank_bytes, -one.kept))


def told(one: Alternative) -> str:
    """A choice in words."""
    groups = f"{one.groups} group{'s' * (one.groups > 1)}"
    share = f", on 1/{one.share} of the elements" if one.share > 1 else ""
    return f"{groups} at {one.bits} bit{'s' * (one.bits > 1)}{share}"


def as_options(one: Alternative) -> str:
    """A choice as `pack` takes it."""
    share = f" --share 1/{one.share}" if one.share > 1 else ""
    return f"--groups {one.groups} --bits {one.bits}{share}"


def advice(choices: Sequence[Alternative]) -> str | None:
    """A sentence where another choice is predicted to keep notably more at no more bytes."""
    here = next((one for one in choices if one.present), None)
    if here is None:
        return None
    inside = [one for one in choices if one.exact and one.bank_bytes <= here.bank_bytes]
    best = max(inside, key=lambda one: (round(one.kept, DIGITS), -one.bank_bytes))
    if best.kept < here.kept + _BETTER:
        return None
    return (
        f"{as_options(best)} would take no more and keep {percent(best.kept)} of the gain over the "
        f"base, not {percent(here.kept)} (predicted)"
    )


def unsure(bank: BankFile, statistics: Statistics) -> str | None:
    """A sentence where measured families of models want λ far apart, and nobody tuned."""
    if any(task.coefficient is not None for task in bank.manifest.tasks):
        return None
    low, high = wanted(noise_of(bank_lengths(bank.manifest, statistics.known)))
    if high - low < _APART:
        return None
    return (
        f"at this noise measured families of models wanted a λ of {low:g} to {high:g}: only "
        "randes tune knows what these models want, and more groups make it matter less"
    )


class Sealing(NamedTuple):
    """A sealing that saves bytes and loses next to nothing: the bank as it is, and as it was."""

    here: Alternative
    best: Alternative

    def command(self, bank: str) -> str:
        """What makes it: beside the bank, or here where that is on the Hub or the web."""
        scheme, address, _ = bank.partition("://")
        away = scheme.lower() not in OBJECT_STORES if address else is_bank_there(bank)
        where = re.split("[/:]", bank)[-1] if away else bank
        small = f"{where.removesuffix('.randes')}-{self.best.bits}bit.randes"
        return f"randes seal {shell_word(bank)} --bits {self.best.bits} -o {shell_word(small)}"


def sealing(choices: Sequence[Alternative]) -> Sealing | None:
    """The smallest of those, if there is any."""
    here = next((one for one in choices if one.present), None)
    if here is None or here.bits < 8:
        return None
    sealed = [
        one
        for one in choices
        if one.bits < 8
        and (one.groups, one.share) == (here.groups, here.share)
        and one.kept >= here.kept - _AS_GOOD
        and one.bank_bytes <= (1 - _SAVES) * here.bank_bytes
    ]
    if not sealed:
        return None
    return Sealing(here, min(sealed, key=lambda one: one.bank_bytes))


def saving(
    choices: Sequence[Alternative], bank: str, base_bytes: int, size: int | None = None
) -> str | None:
    """A sentence of `sealing`, with the command; `size` are the bytes that it makes, if known."""
    found = sealing(choices)
    if found is None:
        return None
    made = found.best.bank_bytes if size is None else size
    small, large = (one / max(1, base_bytes) for one in (made, found.here.bank_bytes))
    return (
        f"{found.command(bank)} would make it {small:.2f} × the base, not {large:.2f} ×, and "
        f"read-only; predicted to keep {percent(found.best.kept)} of the gain, not "
        f"{percent(found.here.kept)}"
    )


#: Cosine of factors whose product is hardly worse.
_GOOD_FACTOR = 0.99


def adapter_advice(cosine: float) -> str | None:
    """A sentence where adapters are superposed as they are and meet others.

    Both factors of a product come back with noise, so it has about the product of their cosines.
    """
    if cosine > _GOOD_FACTOR:
        return None
    return (
        f"the factors of these adapters come back with a cosine of {cosine:.3f}, their products "
        f"with about {cosine**2:.3f}; packed with their base (--merge-adapters) these would keep "
        f"about {cosine:.3f}"
    )
