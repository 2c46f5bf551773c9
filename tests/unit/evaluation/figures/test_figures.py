"""The images of a run folder: what is drawn where, and that no text breaks them."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from blip2_train.data.emoji_scenes.naming import marked_names
from blip2_train.evaluation.figures.captions import RIGHT, WRONG, ShownCaption, caption_figure, marked_words
from blip2_train.evaluation.figures.curves import draw_curves, draw_figure, mark_level
from blip2_train.evaluation.figures.retrieval import RetrievedImages, retrieval_figure
from blip2_train.training.run_log import RunCSVLogger

TEXTS = [
    "two foxes",
    "",
    "costs $5 and $6_{x",
    "word" * 60,
    "猫が二匹 кошка",
    "a\nb\tc \x1b[2J \u202e evil",
    "long " * 90,
]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count(image: np.ndarray, colour: str) -> int:
    return int((image == np.round(255 * np.array(to_rgb(colour)))).all(axis=2).sum())


def captions(right: bool | None) -> list[ShownCaption]:
    return [ShownCaption(words=[(word, right) for word in text.split()], reference=text) for text in TEXTS]


@pytest.mark.slow
def test_words_have_the_colour_of_what_is_known_of_them() -> None:
    images = torch.ones(len(TEXTS), 3, 4, 4)
    shown = {right: pixels(caption_figure("a title", images, captions(right))) for right in (True, False, None)}
    assert count(shown[True], RIGHT) > 100 and count(shown[True], WRONG) == 0
    assert count(shown[False], WRONG) > 100 and count(shown[False], RIGHT) == 0
    assert count(shown[None], WRONG) == count(shown[None], RIGHT) == 0


@pytest.mark.slow
def test_no_text_breaks_a_figure_or_makes_matplotlib_warn(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(len(TEXTS), 3, 4, 4)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error", UserWarning)  # not what old matplotlib uses of new packages
        short = pixels(caption_figure("$t", images[:1], captions(True)[:1]))
        long = pixels(caption_figure("$t", images[:1], captions(True)[6:7]))
        caption_figure("all", images, captions(True))
        retrieved = RetrievedImages(
            text=TEXTS[2] + TEXTS[4], images=images[:3], scores=[0.1] * 3, right=[False] * 3, rank=9
        )
        retrieval_figure("$t", [retrieved])
    assert long.shape[0] > short.shape[0] + 100 and long.shape[1] == short.shape[1], "a long caption gets more lines"
    assert not [record for record in caplog.records if record.name.startswith("matplotlib")]


def test_the_right_image_is_marked_where_it_is() -> None:
    images = torch.ones(4, 3, 4, 4)
    marked = []
    for column in range(4):
        right = [n == column for n in range(4)]
        retrieved = RetrievedImages(text="a text", images=images, scores=[0.4, 0.3, 0.2, 0.1], right=right, rank=5)
        columns = (pixels(retrieval_figure("t", [retrieved])) == np.round(255 * np.array(to_rgb(RIGHT)))).all(axis=2)
        marked.append(float(columns.nonzero()[1].mean()))
    assert marked == sorted(marked) and marked[3] - marked[0] > 300


def test_names_of_things_are_marked() -> None:
    marked, missing = marked_names("a cat and TWO fire engines", ["two fire engines by a fox"])
    assert marked == [("a", None), ("cat", False), ("and", None), ("TWO", None), ("fire", True), ("engines", True)]
    assert missing == ["fox"]


def test_a_thing_named_once_more_than_it_is_there_is_wrong_the_second_time() -> None:
    marked, missing = marked_names("a fox with a fox", ["a fox", "one fox"])
    assert [right for _, right in marked] == [None, True, None, None, False] and not missing
    marked, _ = marked_names("a fox with a fox", ["a fox by a fox"])
    assert [right for _, right in marked] == [None, True, None, None, True]


def test_what_is_missing_is_shown_in_red() -> None:
    assert [(word.text, word.colour) for word in marked_words([("a", None), ("fox", True)], ["red car"])][1:] == [
        ("fox", RIGHT), ("(missing:", WRONG), ("red", WRONG), ("car)", WRONG)
    ]  # fmt: skip
    assert len(marked_words([("a", None)], [])) == 1


def test_a_level_beyond_the_scale_is_a_mark_at_its_edge() -> None:
    axes = Figure().subplots()
    axes.set_ylim(1, 2)
    mark_level(axes, 1.5, "chance", "grey")
    assert not axes.texts and axes.lines[-1].get_ydata()[0] == 1.5  # type: ignore[index]
    for level, sign in ((6.54, "▲"), (5.0, "▲"), (0.1, "▼")):
        mark_level(axes, level, "chance", "grey")
        assert axes.texts[-1].get_text() == f"{sign} chance {level:.2f}"
    first, second, below = (text.get_position()[1] for text in axes.texts)
    assert second < first == 0 == below, "two of one side stand below each other"
    assert axes.get_ylim() == (1, 2)


def test_what_matching_and_temperature_do_is_drawn_and_a_start_beyond_the_scale_is_named() -> None:
    rows = [
        {"step": str(step), "train/loss_itm": str(loss), "train/temperature": "0.07", "val/itm_accuracy_match": "40.0"}
        for step, loss in enumerate([9.0] + [0.6 - step / 100 for step in range(40)])
    ]
    loss, matching, temperature = draw_figure(rows, {"loss_itm": 0.64}).axes
    assert any(text.get_text() == "▲ starts at 9.00" for text in loss.texts)
    assert matching.get_title() == "held-out ITM accuracy (%)" and temperature.get_title() == "temperature of ITC"
    assert [line.get_label() for line in matching.lines] == ["on matches"]
    assert not any(
        text.get_text().startswith("▲ starts") for text in draw_figure(rows[1:], {"loss_itm": 1.0}).axes[0].texts
    )


@pytest.mark.parametrize("scores", [{}, {"val/cider": 0.5}, {"val/image_to_text_r1": 5.0, "val/pairs": 64.0}])
def test_curves_are_drawn(tmp_path: Path, scores: dict[str, float]) -> None:
    log = RunCSVLogger(str(tmp_path))
    for step in (1, 2):
        log.log_metrics({"train/loss_itc": 3.0 / step}, step=step)
        log.log_metrics({"val/loss_itc": 3.0 / step, **scores}, step=step)
    path = draw_curves(tmp_path, {"loss_itc": 4.2}, 5.5)
    assert path == tmp_path / "curves.png"
    inches = 4 * (1 + bool(scores)) + (1.2 if "val/pairs" in scores else 0)
    assert abs(pixels(path.read_bytes()).shape[1] - 110 * inches) <= 1  # matplotlib 3.10 cuts, later ones round


def test_no_rows_no_curves(tmp_path: Path) -> None:
    assert draw_curves(tmp_path, {"loss_itc": 4.2}) is None and list(tmp_path.iterdir()) == []
