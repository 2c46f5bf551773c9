"""What the demo gives: captions, where queries look, and curves, drawn from the newest runs of its two stages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from blip2_train.config.compose import compose
from blip2_train.data.emoji_scenes.layout import WorldPaths
from blip2_train.data.emoji_scenes.naming import marked_names
from blip2_train.errors import ConfigError
from blip2_train.evaluation.figures.captions import marked_words
from blip2_train.evaluation.figures.curves import mark_level
from blip2_train.evaluation.figures.lettering import Lettering
from blip2_train.evaluation.report.image_data import heat_layer
from blip2_train.evaluation.report.scale import value_range
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics, read_results
from blip2_train.models.query_attention import query_attention
from blip2_train.pretrained import load_pretrained
from blip2_train.training.earlier_runs import find_source

STAGE_1, STAGE_2 = "last:demo_stage1", "last:demo_stage2_opt"
SHOWN, WIDTH, HEIGHT, SIZE, DPI = 4, 11.0, 6.3, 9.5, 150
"""Images, inches of the figure, points of letters, pixels per inch."""


def results_png(output_dir: str = "outputs") -> bytes:
    """The figure as a PNG file of 256 colours, which look the same and take a third of the bytes.

    Args:
        output_dir: Where the runs are.

    Raises:
        ConfigError: if there is none, naming the command that makes it.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    draw_results(output_dir).savefig(drawn, format="png", dpi=DPI, facecolor="white")
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def draw_results(output_dir: str = "outputs") -> Figure:
    """Captions of four held-out images, where the queries look in them, the curves of both runs.

    Args:
        output_dir: Where the runs are.

    Raises:
        ConfigError: if there is none, naming the command that makes it.
    """
    try:
        sources = [find_source(named, output_dir, "results.png") for named in (STAGE_1, STAGE_2)]
    except ConfigError as error:
        raise ConfigError(
            f"results.png is drawn from runs of the demo: {error}; bash run_scripts/pretrain_stage1.sh && bash "
            "run_scripts/pretrain_stage2.sh makes them"
        ) from None
    runs = [Path(source).parent for source in sources]
    world = WorldPaths(root=Path(str(compose(["experiment=demo_stage1"]).paths.data_dir)) / "emoji_scenes")
    content = json.loads(world.captions("val").read_text("utf-8"))
    images = [(one["id"], world.images / "val" / one["file_name"]) for one in content["images"][:SHOWN]]
    references = {
        number: [one["caption"] for one in content["annotations"] if one["image_id"] == number] for number, _ in images
    }
    figure = Figure(figsize=(WIDTH, HEIGHT))
    FigureCanvasAgg(figure)
    _draw_captions(figure, sources[1], [path for _, path in images], list(references.values()))
    _draw_strip(figure, sources[0], [path for _, path in images])
    _draw_curves(figure, *runs)
    return figure


def _heading(figure: Figure, text: str, left: float, top: float) -> None:
    figure.text(left / WIDTH, top / HEIGHT, text, fontsize=10.5, va="bottom", weight="bold")


def _box(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    return figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))


def _image_box(figure: Figure, left: float, bottom: float, side: float, path: Path) -> Axes:
    axes = _box(figure, left, bottom, side, side)
    axes.imshow(Image.open(path).convert("RGB"), extent=(0, 1, 0, 1))
    axes.axis("off")
    return axes


def _draw_captions(figure: Figure, source: str, paths: list[Path], references: list[list[str]]) -> None:
    model, _ = load_pretrained(source, device="cpu")
    captions = model.caption(paths, num_beams=5)
    steps = read_results(Path(source).parent)["steps"]
    _heading(figure, f"Captions of {len(paths)} held-out images, after {steps:,.0f} steps of stage 2", 0.2, 6.0)
    letters = Lettering(captions, DPI)
    for number, (path, caption, known) in enumerate(zip(paths, captions, references, strict=True)):
        axes = _image_box(figure, 0.2 + 2.72 * number, 3.85, 2.05, path)
        words = marked_words(*marked_names(caption, known))
        letters.draw(axes, letters.lines(words, 72 * 2.5, SIZE), SIZE, 5)


def _draw_strip(figure: Figure, source: str, paths: list[Path]) -> None:
    """The same images under the mean attention of all queries."""
    model, processor = load_pretrained(source, device="cpu")
    pixels = torch.stack([processor.image(path) for path in paths])
    means = [attention.mean(0) for attention in query_attention(model.image_text("results.png"), pixels)]
    _heading(figure, "Where the queries of stage 1 look (brighter = more)", 0.2, 2.75)
    for number, (path, mean) in enumerate(zip(paths, means, strict=True)):
        axes = _image_box(figure, 0.2 + 1.25 * number, 1.3, 1.15, path)
        layer = Image.open(io.BytesIO(heat_layer(mean))).convert("RGBA")
        axes.imshow(layer, extent=(0, 1, 0, 1), interpolation="bilinear")


def _draw_curves(figure: Figure, first: Path, second: Path) -> None:
    rows, chance = read_metrics(first / METRICS_FILE), read_results(first)
    _heading(figure, "Curves of both runs", 5.8, 2.75)
    axes = _box(figure, 6.1, 0.6, 2.1, 1.85)
    trained, held_out = curve(rows, "train/loss_itc"), curve(rows, "val/loss_itc")
    axes.plot(*trained, linewidth=1, label="train")
    axes.plot(*held_out, marker="o", markersize=3, label="held-out")
    axes.set_ylim(*value_range(trained[1], held_out[1]))
    mark_level(axes, chance["chance/loss_itc"], "chance", "C0")
    mark_level(axes, chance["chance/val_loss_itc"], "chance, held-out", "C1")
    axes.set_title("stage 1: contrast (nats)", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="upper right", bbox_to_anchor=(1, 0.85))
    scores = _box(figure, 8.75, 0.6, 2.05, 1.85)
    scores.plot(*curve(read_metrics(second / METRICS_FILE), "val/cider"), marker="o", markersize=3, color="C1")
    scores.set_title("stage 2: CIDEr of held-out captions", fontsize=9)
    for one in (axes, scores):
        one.tick_params(labelsize=8)
        one.set_xlabel("optimiser step", fontsize=8)
        one.spines[["top", "right"]].set_visible(False)
