"""Measures randes beside plain copies of the same bytes: tables, plots, JSON.

    python benchmarks/run.py [--folder SCRATCH] [--size 124M ...] [--jobs REGEX] [--again TIMES]
        [--mergekit] [--scaling] [--large]

Each job is a whole command in a process of its own, on a warm page cache; a job and its limit
take turns, and medians are compared. Models are generated in SCRATCH (a temporary folder unless
given) and used again by the next call. What the disk has no room for is skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from goals import goal_lines, measure_goals
from jobs import JOBS, PREPARED, Bench, Command, Job
from measure import Taken, measure, median, randes, touch_memory
from mergekit import command as mergekit_command
from mergekit import install

from models import SIZES, make_models

Row = dict[str, Any]


def main() -> None:
    """Run what was asked for and write the results."""
    options = parse()
    folder = options.folder or Path(tempfile.gettempdir()) / "randes-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    commands = install(folder) if options.mergekit else None
    found: dict[str, Any] = {"machine": machine(), "jobs": [], "scaling": [], "large": []}
    for name in options.size:
        for row in measure_size(name, options, folder, commands):
            show(row)
            found["jobs"].append(row)
    if options.scaling:
        found["scaling"] = list(scaling(folder, options.repeats, options.touch))
    if options.large:
        found["large"] = list(large(folder))
    if options.goals:
        found["goals"] = measure_goals(folder)
    if options.swap:
        swap = [sys.executable, str(Path(__file__).with_name("swap.py")), str(folder)]
        found["swap"] = json.loads(subprocess.check_output(swap))
    (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    text = report(found)
    (options.out / "results.md").write_text(text)
    plot(found, options.out / "results.png")
    print(text)
    if not options.folder:
        shutil.rmtree(folder)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure randes beside plain copies.")
    parser.add_argument("--folder", type=Path, help="where models are made, and kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--size", nargs="*", choices=sorted(SIZES), default=["124M", "506M"])
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", help="only the jobs whose names this regular expression matches")
    again = "how often to repeat a run in which others wanted the cores for a fifth of its time"
    parser.add_argument("--again", type=int, default=0, help=again)
    parser.add_argument(
        "--touch", type=float, default=4.0, help="GiB to use and free before each measured command"
    )
    parser.add_argument("--mergekit", action="store_true", help="install and measure mergekit")
    parser.add_argument("--scaling", action="store_true", help="fit exponents of time")
    parser.add_argument("--large", action="store_true", help="2B parameters, and 64 tasks")
    parser.add_argument("--goals", action="store_true", help="starts, and 100,000 small tensors")
    parser.add_argument("--swap", action="store_true", help="Pool and Bank.load_into")
    return parser.parse_args()


def machine() -> str:
    """What the figures came from, without names."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0].split(":", 1)[1].strip() if names else platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def take(command: Command, made: list[Path], log: Path, touch: float) -> Taken:
    """Measure one command that begins without its output files, and with memory at hand."""
    for path in made:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    touch_memory(touch)
    return measure(command, log)


def measure_job(job: Job, bench: Bench, options: argparse.Namespace) -> Row:
    """A job and its limit in turns, the limit first: it leaves what both read in the cache."""
    log, touch = bench.folder / "log.txt", options.touch
    ran, plain = [], []

    def once(command: Command) -> Taken:
        if not job.prepare:
            return take(command, job.made(bench), log, touch)
        measure(job.prepare(bench), log)
        return take(command, [], log, touch)

    def one(command: Command) -> Taken:
        tries = [once(command)]
        while len(tries) <= options.again and tries[-1].waited > tries[-1].seconds / 5:
            tries.append(once(command))
        return min(tries, key=lambda taken: taken.waited / taken.seconds)

    once(job.limit(bench))
    for _ in range(options.repeats):
        plain.append(one(job.limit(bench)))
        ran.append(one(job.command(bench)))
    for path in job.made(bench):
        path.unlink(missing_ok=True)
    found = row(job.name, median(ran), median(plain))
    return found if job.goal is None else {**found, "goal": job.goal}


def row(name: str, ran: Taken, plain: Taken | None) -> Row:
    """One line of a table."""
    made: Row = {"job": name, "seconds": ran.seconds, "cpu": ran.cpu, "anonymous": ran.anonymous}
    made["waited"] = ran.waited
    if plain:
        made |= {"limit": plain.seconds, "limit_cpu": plain.cpu}
        made["ratio"] = ran.seconds / plain.seconds
    return made


def measure_size(
    name: str, options: argparse.Namespace, folder: Path, commands: Path | None
) -> Iterator[Row]:
    """All jobs at one size."""
    size, tasks, repeats = SIZES[name], options.tasks, options.repeats
    paths = make_models(size, tasks, folder)
    if paths is None:
        print(f"{name}: skipped, the disk is short", file=sys.stderr)
        return
    bench = Bench(folder, paths[0], paths[1:])
    for path, prepared in PREPARED.items():
        if not (options.jobs and (folder / path).exists()):
            measure(prepared(bench), folder / "log.txt")
    for job in (job for job in JOBS if re.search(options.jobs or "", job.name)):
        try:
            yield {"size": name, "tasks": tasks, **measure_job(job, bench, options)}
        except RuntimeError as error:
            print(f"{name} {job.name}: {error}", file=sys.stderr)
    if commands:
        merged = folder / "merged"
        words = mergekit_command(commands, size, paths[0], paths[1:], merged)
        log = folder / "log.txt"
        runs = [take(words, [merged], log, options.touch) for _ in range(max(1, repeats // 2))]
        yield {"size": name, "tasks": tasks, **row("mergekit task_arithmetic", median(runs), None)}
        shutil.rmtree(merged, ignore_errors=True)


def pack_once(name: str, tasks: int, folder: Path, repeats: int, touch: float) -> Row | None:
    """`pack` alone at a size and number of tasks."""
    paths = make_models(SIZES[name], tasks, folder)
    if paths is None:
        print(f"{name} × {tasks}: skipped, the disk is short", file=sys.stderr)
        return None
    bench = Bench(folder, paths[0], paths[1:])
    words = randes("pack", bench.base, *bench.named(), "-o", bench.edited, "--quiet")
    log = folder / "log.txt"
    take(words, [bench.edited], log, 0)
    runs = [take(words, [bench.edited], log, touch) for _ in range(repeats)]
    bench.edited.unlink()
    made = row("pack hankel", median(runs), None)
    return {"size": name, "parameters": SIZES[name].parameters, "tasks": tasks, **made}


def scaling(folder: Path, repeats: int, touch: float) -> Iterator[Row]:
    """Pack at doubled sizes and numbers of tasks; the smallest tells what the start takes."""
    points = [(name, 4) for name in ("1M", "62M", "124M", "248M", "506M", "1B")]
    points += [("124M", tasks) for tasks in (2, 8, 16)]
    for name, tasks in points:
        found = pack_once(name, tasks, folder, repeats, touch)
        if found:
            show(found)
            yield found


def large(folder: Path) -> Iterator[Row]:
    """Memory at the largest size and at the most tasks."""
    for name, tasks in (("2B", 3), ("124M", 64)):
        found = pack_once(name, tasks, folder, 1, 0)
        if found:
            show(found)
            yield found


def exponent(rows: list[Row], key: str, figure: str, start: float) -> float | None:
    """The slope of log(figure − start) over log(key), by least squares."""
    points = [(math.log(r[key]), math.log(max(1e-9, r[figure] - start))) for r in rows]
    if len(points) < 3:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def show(found: Row) -> None:
    """One line while the benchmark runs."""
    ratio = f", {found['ratio']:.2f} × the limit" if "ratio" in found else ""
    print(
        f"{found['size']} × {found['tasks']} {found['job']}: {found['seconds']:.2f} s{ratio}, "
        f"CPU {found['cpu']:.2f} s, {found['anonymous']:.0f} MB, waited {found['waited']:.2f} s",
        file=sys.stderr,
    )


def report(found: dict[str, Any]) -> str:
    """Everything as Markdown tables."""
    lines = [found["machine"], "", *goal_lines(found), ""]
    head = "| size | tasks | job | seconds | limit | ratio | CPU s | limit's CPU s | MB |"
    lines += [head, "|---|---|---|---|---|---|---|---|---|"]
    for r in [*found["jobs"], *found["scaling"], *found["large"]]:
        limit = f"{r['limit']:.2f} | {r['ratio']:.2f}" if "ratio" in r else " | "
        plain = f"{r['limit_cpu']:.2f}" if "limit_cpu" in r else ""
        lines.append(
            f"| {r['size']} | {r['tasks']} | {r['job']} | {r['seconds']:.2f} | {limit} "
            f"| {r['cpu']:.2f} | {plain} | {r['anonymous']:.0f} |"
        )
    by_size = [r for r in found["scaling"] if r["tasks"] == 4 and r["size"] != "1M"]
    smallest = [r for r in found["scaling"] if r["size"] == "1M"]
    by_task = [r for r in found["scaling"] if r["size"] == "124M"]
    for rows, key in ((by_size, "parameters"), (by_task, "tasks")):
        for figure in ("seconds", "cpu"):
            start = smallest[0][figure] if smallest else 0.0
            slope = exponent(rows, key, figure, start)
            if slope is not None:
                lines.append(f"\n{figure} of pack beyond {start:.2f} s grow as {key}^{slope:.2f}")
    for name, kinds in found.get("swap", {}).items():
        for kind, ways in kinds.items():
            taken = ", ".join(f"{way} {later:.0f} ms" for way, (_, later) in ways.items())
            lines.append(f"\n{name}, {kind}: {taken}")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """Bars of every job beside its limit."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no plot: pip install matplotlib", file=sys.stderr)
        return
    sizes = list(dict.fromkeys(r["size"] for r in found["jobs"]))
    if not sizes:
        return
    figure, axes = plt.subplots(1, len(sizes), figsize=(5.5 * len(sizes), 3.5), squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        rows = [r for r in found["jobs"] if r["size"] == size]
        places = range(len(rows))
        axis.barh([p + 0.2 for p in places], [r["seconds"] for r in rows], 0.4, label="command")
        axis.barh([p - 0.2 for p in places], [r.get("limit", 0) for r in rows], 0.4, label="copy")
        axis.set_yticks(list(places), [r["job"] for r in rows])
        axis.set(title=f"{size}, {rows[0]['tasks']} tasks", xlabel="seconds")
        axis.invert_yaxis()
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
