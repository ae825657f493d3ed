"""What scripts/benchmarks/benchmark.py shows: its figures as tables and as a drawing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util.errors import UserError
from util.plotting import figure_to_file

BEGIN, END = "<!-- figures: written by scripts/benchmarks/benchmark.py -->", "<!-- end of figures -->"
NOT_MEASURED = "not measured"
TITLES = {"cut": "CUT", "fastcut": "FastCUT", "sincut": "SinCUT", "cycle_gan": "CycleGAN"}


def markdown(report: Mapping[str, Any]) -> str:
    """All tables."""
    machine = report["machine"]
    peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in machine["peak_flops"].items())
    units = ", with bf16 units (AMX)" if machine["bf16_units"] else ""
    parts = [
        f"{machine['date']}: {machine['device']}, {machine['processor']}{units}; Python {machine['python']}, PyTorch "
        f"{machine['torch']}. Measured peak of matrix products: {peaks}."
    ]
    for run in report["runs"]:
        parts += [
            f"**{TITLES[run['method']]}, {run['side']} px, batch {run['batch']}**; Y = {run['Y']:.3f} s",
            _steps(run, machine),
        ]
    if "data" in report:
        published = report["data"]["as published"]
        rows = [[way, f"{rate:.0f}", f"{rate / published:.1f}"] for way, rate in report["data"].items()]
        parts += [
            "**Images read per second and core**, 256 px from JPEG files",
            _table(["", "images/s", "× published"], rows),
        ]
    if "loop" in report:
        rows = [[name, f"{rate:.3f}"] for name, rate in report["loop"].items()]
        parts += ["**CUT from JPEG files**, 256 px, batch 1, two loading processes", _table(["", "images/s"], rows)]
    return "\n\n".join(parts)


def _steps(run: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    on_gpu = machine["device"].startswith("GPU")
    head = ["", "step / Y", "lowest to highest", "images/s", "peak GB", "GFLOP/s", "share of peak", "images/s on a GPU"]
    rows = []
    for way, found in run["ways"].items():
        low, high = min(found["seconds"]) / run["Y"], max(found["seconds"]) / run["Y"]
        rate = found["flops"] / found["median"]
        peak = machine["peak_flops"]["bf16" if found["format"] == "bf16" else "fp32"]
        images = f"{found['images_per_second']:.3g}"
        memory = f"{found['peak_GB']:.2f}" if "peak_GB" in found else NOT_MEASURED
        rows.append(
            [
                *(way, f"{found['over_Y']:.1f}", f"{low:.1f} to {high:.1f}", NOT_MEASURED if on_gpu else images, memory),
                *(f"{rate / 1e9:.0f}", f"{rate / peak:.0%}", images if on_gpu else NOT_MEASURED),
            ]
        )
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_figures(page: Path, figures: str) -> None:
    """Puts the figures between the page's marks. Raises UserError where it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{page} has no place for figures: a line {BEGIN} and a line {END}")
    page.write_text(f"{before}{BEGIN}\n{figures}\n{END}{after}")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for each method, a bar for each way, from its median; the thin line goes from lowest to highest."""
    runs = report["runs"]
    most = max(len(run["ways"]) for run in runs)
    with figure_to_file(path, 4.2 * len(runs), 0.8 + 0.32 * most) as figure:
        for panel, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
            ways = list(reversed(run["ways"].items()))
            medians = [found["over_Y"] for _, found in ways]
            lows = [found["over_Y"] - min(found["seconds"]) / run["Y"] for _, found in ways]
            highs = [max(found["seconds"]) / run["Y"] - found["over_Y"] for _, found in ways]
            bars = panel.barh([way for way, _ in ways], medians, xerr=(lows, highs))
            panel.bar_label(bars, fmt="%.1f", padding=4)
            panel.set_title(f"{TITLES[run['method']]}, {run['side']} px, batch {run['batch']}")
            panel.set_xlabel("step / Y")
