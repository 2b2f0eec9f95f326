"""randes diff"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Result

Randes = Callable[..., Result]


def test_equal_checkpoints_print_nothing_and_exit_0(family: Path, randes: Randes) -> None:
    a = family / "a.safetensors"
    assert randes("diff", a, a) == Result(0, "", "")
    assert randes("diff", a, a, "--json").json["same"] is True
    more = {**load_file(a), "extra.weight": torch.ones(2)}
    save_file(more, family / "more.safetensors")
    assert randes("diff", a, family / "more.safetensors").code == 1


def test_two_checkpoints_list_what_only_one_has_and_exit_1(family: Path, randes: Randes) -> None:
    a, c = load_file(family / "a.safetensors"), load_file(family / "c.safetensors")
    a["wte.weight"] = torch.zeros(90, 48)
    save_file(a, family / "other.safetensors")
    c["extra.weight"] = torch.ones(2)
    del c["norm.bias"]
    save_file(c, family / "c2.safetensors")
    result = randes("diff", family / "other.safetensors", family / "c2.safetensors", "--json")
    assert result.code == 1
    assert "differ" in result.err
    found = result.json
    assert found["added"] == ["extra.weight"] and found["removed"] == ["norm.bias"]
    assert found["reshaped"] == {"wte.weight": [[90, 48], [100, 48]]}
    assert found["retyped"]["h.0.w.weight"] == ["F32", "BF16"]
    assert [one["name"] for one in found["types"]] == ["h.*.w.weight", "ids"]
    assert found["same"] is False
    shown = randes("diff", family / "other.safetensors", family / "c2.safetensors")
    for word in ("extra.weight", "norm.bias", "90×48", "BF16", "h.*.w.weight"):
        assert word in shown.out
    assert max(map(len, shown.out.splitlines())) <= 100


def test_of_many_tensors_of_other_dtype_or_shape_the_first_are_shown(
    tmp_path: Path, randes: Randes
) -> None:
    names = [f"h.{n:02}.weight" for n in range(50)]
    one = {name: torch.ones(2, 3) for name in names}
    two = {n: torch.ones(3, 2) if n < "h.25" else torch.ones(2, 3).half() for n in names}
    for name, state in (("a", one), ("b", two)):
        save_file(state, tmp_path / name)
    lines = randes("diff", tmp_path / "a", tmp_path / "b").out.splitlines()
    for head in ("other shape", "other dtype"):
        start = next(n for n, line in enumerate(lines) if line.startswith(head))
        assert lines[start + 21] == "… 5 more (--json lists all)" and not lines[start + 22]


@pytest.mark.parametrize("with_base", [False, True])
def test_cosine_and_norm_by_type_equal_those_of_whole_tensors(
    family: Path, randes: Randes, with_base: bool
) -> None:
    paths = [family / f"{name}.safetensors" for name in ("a", "b", "base")]
    words = ["diff", *paths[:2], "--json", *(["--base", paths[2]] if with_base else [])]
    row = next(r for r in randes(*words).json["types"] if r["name"] == "h.*.w.weight")
    states = [load_file(path) for path in paths]
    one, two, zero = (
        torch.cat([s[f"h.{i}.w.weight"].flatten() for i in range(4)]).double() for s in states
    )
    if with_base:
        one, two = one - zero, two - zero
    assert row["tensors"] == row["changed"] == 4
    assert row["cosine"] == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-6)
    assert row["norm"] == pytest.approx(float((one - two).norm()), rel=1e-6)
    assert row["relative"] == pytest.approx(float((one - two).norm() / one.norm()), rel=1e-6)


def test_integers_and_single_bits_count_as_changed(family: Path, randes: Randes) -> None:
    state = load_file(family / "a.safetensors")
    state["ids"][3] = 99
    state["norm.bias"][0] = -state["norm.bias"][0]
    save_file(state, family / "other.safetensors")
    found = randes("diff", family / "a.safetensors", family / "other.safetensors", "--json").json
    changed = {row["name"]: row["changed"] for row in found["types"] if row["changed"]}
    assert changed == {"ids": 1, "norm.bias": 1}


def test_a_bank_is_the_same_as_its_copy_and_as_one_packed_again(
    bank: Path, family: Path, randes: Randes
) -> None:
    again = family / "again.randes"
    words = ["pack", family / "base.safetensors", family / "a.safetensors"]
    randes(*words, f"b={family / 'b.safetensors'}", "-o", again, "-q")
    assert randes("diff", bank, again) == Result(0, "", "")
    assert randes("add", again, family / "c.safetensors", "-q").code == 0
    assert randes("remove", again, "c", "-q").code == 0
    found = randes("diff", bank, again, "--json").json
    assert (found["settings"], found["tensors"]) == ({"next index": [2, 3]}, [])
    assert found["same"] is False
    assert randes("seal", again, "--in-place", "--bits", "2", "-q").code == 0
    found = randes("diff", bank, again, "--json").json
    assert found["settings"]["sealed"] == [{}, {"0": 2}] and found["kept"] == ["a", "b"]
    shown = [line.split() for line in randes("diff", bank, again).out.splitlines()]
    assert ["sealed", "-", "2", "in", "group", "0"] in shown


def test_two_banks_list_tasks_and_settings(bank: Path, family: Path, randes: Randes) -> None:
    other = family / "other.randes"
    words = ["pack", family / "base.safetensors", f"b={family / 'a.safetensors'}"]
    randes(*words, family / "c.safetensors", "-o", other, "-q", "--seed", "7")
    result = randes("diff", bank, other, "--json")
    assert result.code == 1
    found = result.json
    assert (found["added"], found["removed"], found["kept"]) == (["c"], ["a"], [])
    assert found["settings"] == {"seed": [42, 7]}
    assert set(found["changed"]["b"]) == {"content", "index", "seed", "source"}
    assert "sum/0/h.0.w.weight" in found["tensors"]
    assert "base/h.0.w.weight" not in found["tensors"]
    shown = randes("diff", bank, other).out
    for word in ("tasks only in A (1)", "tasks only in B (1)", "seed", "b: content"):
        assert word in shown


def test_a_bank_knows_the_checkpoints_that_it_was_packed_from(
    bank: Path, family: Path, randes: Randes
) -> None:
    a, b = family / "a.safetensors", family / "b.safetensors"
    assert randes("diff", bank, a, b, "-q") == Result(0, "", "")
    result = randes("diff", bank, f"a={b}", f"new={a}", "-q", "--json")
    assert result.code == 1
    assert list(result.json["changed"]) == ["a"]
    assert result.json["added"] == ["new"]
    save_file({"else": torch.ones(3)}, family / "other.safetensors")  # no model of this base
    result = randes("diff", bank, f"a={family / 'other.safetensors'}", "--json")
    assert (result.code, result.json["types"]) == (1, {"a": []})
    grown = load_file(a)
    grown["wte.weight"] = torch.cat([grown["wte.weight"], torch.ones(3, 48)])
    save_file(grown, family / "grown.safetensors")
    types = randes("diff", bank, f"a={family / 'grown.safetensors'}", "--json").json["types"]
    assert {one["name"] for one in types["a"]} == {"h.*.w.weight", "ids", "norm.bias"}


def test_tasks_are_compared_where_both_banks_superpose_them_on_one_base(
    bank: Path, family: Path, randes: Randes
) -> None:
    base = {
        n: t + 0.5 if t.is_floating_point() else t
        for n, t in load_file(family / "base.safetensors").items()
    }
    save_file(base, family / "moved.safetensors")
    words = [f"a={family / 'b.safetensors'}", "--exact", "^wte", "-q", "-o"]
    for name, left in (("base", {"h.*.w.weight", "ids", "norm.bias"}), ("moved", None)):
        other = family / f"on-{name}.randes"
        assert randes("pack", family / f"{name}.safetensors", *words, other).code == 0
        types = randes("diff", bank, other, "--json").json["types"]
        assert left == ({one["name"] for one in types["a"]} if types else None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.safetensors", "bank.randes"], "put the bank first"),
        (["a.safetensors", "b.safetensors", "c.safetensors"], "put the bank first"),
        (["bank.randes", "a.safetensors", "--base", "base.safetensors"], "two checkpoints only"),
        (["bank.randes", "a=a.safetensors", "a=b.safetensors"], "names a task twice"),
    ],
)
def test_words_that_do_not_fit_exit_2(
    bank: Path, family: Path, randes: Randes, words: list[str], message: str
) -> None:
    full = [
        w if w.startswith("--") else "=".join([*w.split("=")[:-1], str(family / w.split("=")[-1])])
        for w in words
    ]
    result = randes("diff", *full)
    assert result.code == 2
    assert message in result.err


def test_a_base_of_another_shape_is_refused(family: Path, randes: Randes) -> None:
    save_file({"h.0.w.weight": torch.zeros(2, 2)}, family / "wrong.safetensors")
    a, b = family / "a.safetensors", family / "b.safetensors"
    result = randes("diff", a, b, "--base", family / "wrong.safetensors")
    assert result.code == 4
    assert "missing or has another shape" in result.err


def test_a_task_with_another_content_is_compared_by_type_of_tensor(
    bank: Path, family: Path, randes: Randes
) -> None:
    """One small change makes another content; what is compared is the retrieved delta."""
    against_self = randes("verify", bank, "--against", f"a={family / 'a.safetensors'}", "--json")
    moved = load_file(family / "a.safetensors")
    moved["norm.bias"] = moved["norm.bias"] + 1e-3
    save_file(moved, family / "moved.safetensors")
    result = randes("diff", bank, f"a={family / 'moved.safetensors'}", "--json")
    assert result.code == 1
    types = {row["name"]: row for row in result.json["types"]["a"]}
    assert set(types) == {"h.*.w.weight", "wte.weight", "norm.bias", "ids"}
    measured = {row["name"]: row for row in against_self.json["against"][0]["tensors"]}
    assert types["wte.weight"]["cosine"] == pytest.approx(measured["wte.weight"]["cosine"])
    assert types["norm.bias"]["norm"] > 0
    shown = randes("diff", bank, f"a={family / 'moved.safetensors'}").out
    assert "a, as retrieved from A" in shown and "cosine of deltas" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_two_banks_with_another_task_of_one_name_are_compared_by_type(
    bank: Path, family: Path, randes: Randes
) -> None:
    other = family / "other.randes"
    words = ["pack", family / "base.safetensors", f"a={family / 'b.safetensors'}", "-o", other]
    assert randes(*words).code == 0
    result = randes("diff", bank, other, "--json")
    assert result.code == 1
    types = {row["name"]: row for row in result.json["types"]["a"]}
    assert abs(types["wte.weight"]["cosine"]) < 0.05
    assert randes("diff", bank, bank).code == 0


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_compared_and_said(family: Path, randes: Randes) -> None:
    a = load_file(family / "a.safetensors")
    name = "wte.weight"
    a[name][0, 0], a[name][1, 1] = float("nan"), float("inf")
    save_file(a, family / "odd.safetensors")
    odd = family / "odd.safetensors"
    assert randes("diff", odd, odd) == Result(0, "", "")
    assert randes("diff", odd, odd, "--json").json["same"] is True
    found = randes("diff", family / "a.safetensors", odd, "--json")
    assert found.code == 1
    assert "NaN" not in found.out
    first = found.json["types"][0]
    assert first["name"] == name and first["changed"] == 1
    assert [first[key] for key in ("cosine", "norm", "relative")] == [None, None, None]
    assert all(other["norm"] == 0 for other in found.json["types"][1:])
    assert "not finite" in randes("diff", family / "a.safetensors", odd).out


def test_what_was_packed_as_something_else_is_known_again(tmp_path: Path, randes: Randes) -> None:
    """An adapter that was merged, and names with a wrapper's word before them."""
    base = {f"layers.{n}.q.weight": torch.randn(16, 24) for n in range(3)}
    task = {name: value + 0.01 * torch.randn_like(value) for name, value in base.items()}
    save_file(base, tmp_path / "base.safetensors")
    save_file({f"module.{name}": value for name, value in task.items()}, tmp_path / "w.safetensors")
    for seed, name in enumerate(("lora", "other")):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
        pair = {"A": torch.randn(2, 24), "B": torch.randn(16, 2)}
        factors = {f"base_model.model.layers.0.q.lora_{part}.weight": t for part, t in pair.items()}
        save_file(factors, tmp_path / name / "adapter_model.safetensors")
    bank, lora, wrapped = (tmp_path / n for n in ("m.randes", "lora", "w.safetensors"))
    packed = randes("pack", tmp_path / "base.safetensors", lora, wrapped, "-o", bank, "-q")
    assert packed.code == 0, packed.err
    assert randes("diff", bank, lora, wrapped, "-q") == Result(0, "", "")
    result = randes("diff", bank, f"lora={tmp_path / 'other'}", f"w={lora}", "-q", "--json")
    assert (result.code, set(result.json["changed"])) == (1, {"lora", "w"})
    assert all(result.json["types"].values())
