"""The results of a run at its end, as a table."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType

from blip2_train.evaluation.report.logged_scores import MATCHING
from blip2_train.system.tables import NumbersTable, rate

_LABELS = {
    "loss_itc": "ITC, contrast",
    "loss_itm": "ITM, matching",
    "loss_itg": "ITG, generation",
    "loss_lm": "language modelling",
}
_CAPTION_ROWS = (
    ("cider", "CIDEr of captions (1.0 = the papers' 100)", 3),
    ("vqa/accuracy", "VQA accuracy (%)", 1),
    ("names_right", "captions that name exactly the scene's things (%)", 1),
)


def result_lines(
    results: dict[str, float], chance: dict[str, float], rejections: str, paths: dict[str, Path | None]
) -> list[RenderableType]:
    """The end of a run: a table of results, and where everything lies."""
    exported = results.get("exported_step", results["steps"])
    held_out_of = "held-out" if exported == results["steps"] else f"held-out, step {exported:.0f}"
    table = NumbersTable(("", "train", held_out_of, "chance"), title="results")
    for name, level in chance.items():
        held_out = level if name != "loss_itc" else results.get("chance/val_loss_itc", level)
        table.add_row(
            f"{_LABELS.get(name, name)} (nats)",
            _number(results.get(f"train/{name}"), 3),
            _number(results.get(f"val/{name}"), 3),
            f"{level:.3f}" if held_out == level else f"{level:.3f} / {held_out:.3f}",
        )
    pairs = results.get("val/pairs")
    for direction in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            if (value := results.get(f"val/{direction}_r{k}")) is not None and pairs:
                label = direction.replace("_to_", "→")
                table.add_row(f"{label} R@{k} (%)", "", f"{value:.1f}", f"{100 * min(1.0, k / pairs):.1f}")
    for name, what in MATCHING.items():
        if (value := results.get(f"val/{name}")) is not None:
            table.add_row(what.heading, "", what.text(value), "")
    for key, label, digits in _CAPTION_ROWS:
        if (value := results.get(f"val/{key}")) is not None:
            table.add_row(label, _number(results.get(f"train/{key}"), digits), _number(value, digits), "")
    speed = rate(results["samples_per_second"])
    since = f" since step {first:.0f}" if (first := results.get("seconds_since_step")) else ""
    lines = [f"{results['steps']:.0f} steps, {speed} samples/s, {results['seconds']:.0f} s{since}"]
    if results.get("rejected_samples"):
        lines.append(f"rejected samples: {rejections}")
    return [table, *lines, *(f"{label + ':':12}{path}" for label, path in paths.items() if path is not None)]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
