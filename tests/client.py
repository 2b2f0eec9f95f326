"""What a program that uses randes may look like; it must satisfy strict type checkers."""

from pathlib import Path

from randes_cli import (
    Bank,
    MissingError,
    PackOptions,
    PackReport,
    RunOptions,
    TaskInput,
    Transform,
    UnpackOptions,
    pack,
    unpack,
    verify,
)


def cosines(report: PackReport) -> dict[str, float]:
    """The predicted cosine of each task."""
    return {task.name: task.predicted_cosine for task in report.tasks}


def main(folder: Path) -> None:
    """Pack, look, verify, unpack."""
    bank = folder / "bank.randes"
    tasks = [TaskInput(name, folder / f"{name}.safetensors") for name in ("cars", "dtd")]
    options = PackOptions(transform=Transform.from_preset("hankel"), bits=8)
    print(cosines(pack(folder / "base.safetensors", tasks, bank, options, RunOptions(threads=1))))
    assert verify(str(bank)).sound
    with Bank.open(bank) as opened:
        try:
            shapes = {name: tuple(value.shape) for name, value in opened.iter_tensors("boats")}
        except MissingError as error:
            shapes = {}
            print(f"as expected: {error}")
        print(opened.tasks, opened.task("cars").index, shapes)
    for report in unpack(bank, None, folder / "out", UnpackOptions(dtype="BF16")):
        print(report.path, report.bytes)


if __name__ == "__main__":
    main(Path.cwd())
