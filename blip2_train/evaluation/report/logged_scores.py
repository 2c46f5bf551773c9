"""How the losses and scores that a training run logs are shown."""

from __future__ import annotations

from blip2_train.evaluation.metrics.coco_caption import FORMATS as CAPTION_FORMATS
from blip2_train.evaluation.metrics.metric_format import MetricFormat, by_name, percent
from blip2_train.evaluation.metrics.recall import recall_formats

COUNTS = ("images", "pictures", "captions", "questions", "texts", "pairs")
_RECALL = recall_formats((1, 5, 10))
MATCHING = {
    "itm_accuracy_match": percent("ITM accuracy on matches"),
    "itm_accuracy_mismatch": percent("ITM accuracy on mismatches"),
}
"""How many of the pairs that match, and that do not, ITM calls so."""
SUM_LABEL = "loss"
"""Of the sum of an objective's losses."""
_LOSSES = ("itc", "itm", "itg", "lm")


def logged_format(name: str) -> MetricFormat:
    """How a logged metric is shown, by its name behind `train/` or `val/`.

    Example:
        >>> logged_format("loss_itc").heading, logged_format("itm_accuracy").heading
        ('ITC loss (nats)', 'ITM accuracy (%)')
    """
    for known in (CAPTION_FORMATS, _RECALL, MATCHING):
        if name in known:
            return known[name]
    label = " ".join(part.upper() if part in _LOSSES else part for part in name.split("_"))
    if "accuracy" in name or name == "names_right":
        return percent(label)
    if name.startswith("loss"):
        loss = f"{label.removeprefix('loss').strip()} loss".strip()
        return MetricFormat(label=loss, unit="nats", digits=3, lower_is_better=True)
    return MetricFormat(label=label, digits=0) if name in COUNTS else by_name(label)
