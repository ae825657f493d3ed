"""Results of scripts/benchmarks/benchmark.py as JSON, Markdown tables and a plot. Each device has its own results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from training_steps import METHODS

from models import method_name
from util.errors import UserError
from util.plotting import figure_to_file

BEGIN, END = "<!-- benchmark: {} -->", "<!-- end of benchmark -->"
NOT_MEASURED = "–"

Results = dict[str, Any]  # of one device: {"machine": {...}, "runs": [...], "data": {...}, "loop": {...}}


def load_results(path: Path) -> dict[str, Results]:
    """Return the results of all devices in the file, by device name. A missing file has none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save_results(path: Path, results: Results) -> dict[str, Results]:
    """Replace the results of this device in the file, keep those of other devices, and return all."""
    devices = load_results(path) | {results["machine"]["device"]: results}
    path.write_text(json.dumps(devices, indent=1) + "\n", encoding="utf-8")
    return devices


def replace_results(page: Path, results: Results) -> None:
    """Replace the tables of this device in the page, or append them to those of other devices.

    Raises UserError if the page has no section for benchmark results.
    """
    text, begin = page.read_text(encoding="utf-8"), BEGIN.format(results["machine"]["device"])
    section = f"{begin}\n{markdown(results)}\n{END}"
    before, found, rest = text.partition(begin)
    if found:
        _, _, after = rest.partition(END)
    elif END in text:
        before, _, after = text.rpartition(END)
        before += f"{END}\n\n"
    else:
        raise UserError(f"{page}: no section for benchmark results. Add the lines {begin} and {END}.")
    page.write_text(before + section + after, encoding="utf-8")


def markdown(results: Results) -> str:
    """Return the tables of one device."""
    machine, runs = results["machine"], results["runs"]
    parts = [f"{machine['date']}: {machine['device']}; Python {machine['python']}, PyTorch {machine['torch']}."]
    if peaks := _peaks(runs):
        parts[0] += f" Measured peak of matrix products: {peaks}."
    for run in runs:
        parts += [f"**{title(run)}**{_reference_time(run)}", _step_table(run, machine["type"] == "cuda")]
    if "data" in results:
        published = results["data"]["as published"]
        rows = [[name, f"{rate:.0f}", f"{rate / published:.1f}"] for name, rate in results["data"].items()]
        parts += [
            "**Images read per second and core**, 256 px from JPEG files",
            _table(["configuration", "images/s", "× published"], rows),
        ]
    if "loop" in results:
        rows = [[name, f"{rate:.3f}"] for name, rate in results["loop"].items()]
        parts += [
            "**CUT from JPEG files**, 256 px, batch 1, two data loader workers",
            _table(["measured", "images/s"], rows),
        ]
    return "\n\n".join(parts)


def _peaks(runs: Sequence[Mapping[str, Any]]) -> str:
    rates: dict[str, list[float]] = {}
    for measured in _measured(runs):
        rates.setdefault(measured["precision"], []).append(measured["peak_flops"])
    return ", ".join(f"{median(each) / 1e9:.0f} GFLOP/s in {precision}" for precision, each in rates.items())


def title(run: Mapping[str, Any]) -> str:
    """Return the heading of a table, such as "CycleGAN, 256 px, batch 1"."""
    return f"{method_name(METHODS[run['method']])}, {run['size']} px, batch {run['batch']}"


def _reference_time(run: Mapping[str, Any]) -> str:
    times = [seconds for measured in _measured([run]) for seconds in measured["Y"]]
    return f"; Y = {median(times) * 1e3:.3g} ms" if times else ""


def _measured(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the results of the cases that did not fail."""
    return [found for run in runs for found in run["configs"].values() if "error" not in found]


def _step_table(run: Mapping[str, Any], on_gpu: bool) -> str:
    head = ["configuration", "step / Y", "min to max", "images/s", "peak GB", "GFLOP/s", "share of peak"]
    head += ["step ms", "device ms", "host ms", "kernels"] if on_gpu else []
    rows = [[config, *_cells(run, found, on_gpu)] for config, found in run["configs"].items()]
    return _table(head, [row + [""] * (len(head) - len(row)) for row in rows])


def _cells(run: Mapping[str, Any], found: Mapping[str, Any], on_gpu: bool) -> list[str]:
    """Return the cells of one configuration, without its name."""
    if "error" in found:
        return [f"failed: {found['error']}"]
    cells = [f"{found['over_Y']:.1f}", f"{min(found['ratios']):.1f} to {max(found['ratios']):.1f}"]
    cells += [f"{found['images_per_second']:.3g}", f"{found['peak_GB']:.2f}" if "peak_GB" in found else NOT_MEASURED]
    # Operations that a flag repeats to save memory do not count as work done.
    flops = found.get("flops") or run["configs"]["default"].get("flops")
    rate = flops / found["median"] if flops else 0.0
    cells += [f"{rate / 1e9:.0f}", f"{rate / found['peak_flops']:.0%}"] if flops else [NOT_MEASURED] * 2
    if on_gpu:
        cells += [f"{found[name] * 1e3:.3g}" for name in ("median", "device_seconds", "host_seconds")]
        cells.append(f"{found['kernels']:.0f}")
    return cells


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(devices: Mapping[str, Results], path: Path) -> None:
    """Plot a row of panels per device and a panel per method. A bar is a median, its line goes from minimum to maximum."""
    columns = max(len(results["runs"]) for results in devices.values())
    bars = max(len(run["configs"]) for results in devices.values() for run in results["runs"])
    with figure_to_file(path, 4.2 * columns, (0.8 + 0.32 * bars) * len(devices)) as figure:
        panels = figure.subplots(len(devices), columns, squeeze=False)
        for row, (device, results) in zip(panels, devices.items(), strict=True):
            for panel in row[len(results["runs"]) :]:
                panel.set_visible(False)
            for panel, run in zip(row, results["runs"], strict=False):
                _plot_run(panel, run)
            row[0].set_ylabel(device)


def _plot_run(panel: Any, run: Mapping[str, Any]) -> None:
    found = {config: each for config, each in reversed(run["configs"].items()) if "error" not in each}
    medians = [each["over_Y"] for each in found.values()]
    lows = [each["over_Y"] - min(each["ratios"]) for each in found.values()]
    highs = [max(each["ratios"]) - each["over_Y"] for each in found.values()]
    bars = panel.barh(list(found), medians, xerr=(lows, highs))
    panel.bar_label(bars, fmt="%.1f", padding=4)
    panel.margins(x=0.15)  # room for the labels
    panel.set_title(title(run))
    panel.set_xlabel("step / Y")
