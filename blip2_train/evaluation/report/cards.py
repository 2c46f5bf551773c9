"""The gallery of a page: a card for each example, and the form that filters them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from blip2_train.evaluation.report.content import Example, TaskReport
from blip2_train.evaluation.report.image_data import embed_image, heat_addresses, word_addresses
from blip2_train.evaluation.report.markup import Markup, element, joined
from blip2_train.evaluation.report.selection import ChosenExample

_PICKS = {"best": "best", "between": "in between", "worst": "worst", "unscored": "no score"}
_SHOWN_REFERENCES = 3
GLANCE_SIDE = 200
"""Pixels of the longer side of the images at the top."""


def card(task: TaskReport, chosen: ChosenExample, index: int) -> Markup:
    """One example.

    Args:
        task: That it belongs to.
        chosen: The example.
        index: Of the card on the page, from 0.
    """
    example, what = chosen.example, task.format(task.example_metric)
    facts = [element("span", _PICKS[chosen.pick], class_=f"pick {chosen.pick}")]
    papers = what.in_papers(example.score) if example.score is not None else ""
    tooltip = f"rank {chosen.rank} of {chosen.scored:,}" + (f"; in papers' scale {papers}" if papers else "")
    if example.score is not None:
        value = element("b", what.text(example.score))
        facts.append(element("span", f"{what.label} ", value, class_="score", title=tooltip))
    if example.domain:
        facts.append(element("span", example.domain, class_="domain data"))
    if chosen.rank is not None:
        facts.append(element("span", f"{chosen.rank:,} / {chosen.scored:,}", class_="rank", title=tooltip))
    body = [element("p", *facts, class_="facts")]
    if example.question:
        body.append(element("p", example.question, class_="question data"))
    if task.labels.prediction:
        body.append(element("p", task.labels.prediction, class_="heading"))
    body.append(_prediction(example))
    body.append(_references(task, example))
    body.append(element("p", f"{task.title} · {example.id}", class_="origin data"))
    shown = None if example.score is None else f"{example.score * what.factor:.6g}"
    return element(
        "article",
        _image(example, index),
        element("div", *body, class_="details"),
        class_="card",
        data_task=task.name,
        data_domain=example.domain,
        data_pick=chosen.pick,
        data_score=shown,
        data_order=None if chosen.position is None else f"{(chosen.position - 0.5) / chosen.scored:.6f}",
    )


def _image(example: Example, index: int) -> Markup:
    image = embed_image(example.image)
    if image is None:
        return element("div", element("p", "This image could not be read."), class_="frame broken")
    shown = element(
        "img",
        src=image.address,
        alt=f"image {example.id}",
        width=image.width,
        height=image.height,
        decoding="async",
        class_="image",
    )
    views = heat_addresses(example.attention)
    described = [(f"attention of the queries: {label}", address) for label, address in views]
    described += [(f"where the word “{word}” looks", address) for word, address in word_addresses(example.words)]
    layers = [element("img", src=address, alt=text, class_="heat", hidden=True) for text, address in described]
    zoom = element("button", type="button", class_="zoom", aria_label=f"enlarge image {example.id}")
    stage = element("div", shown, *layers, zoom, class_="stage", style=f"--w:{image.width};--h:{image.height}")
    if not views:
        return element("div", stage, class_="frame")
    options = [element("option", "attention off", value="")]
    options += [element("option", label, value=view) for view, (label, _) in enumerate(views)]
    label = element("label", "attention", for_=f"attention-{index}")
    select = element("select", *options, id=f"attention-{index}", class_="attention-choice", autocomplete="off")
    return joined(element("div", stage, class_="frame"), element("div", label, select, class_="attention-choices"))


def _prediction(example: Example) -> Markup:
    """What was predicted; a word with a map is a button that shows it."""
    if not example.prediction.strip():
        return element("p", "(nothing)", class_="prediction nothing")
    if not example.words:
        return element("p", example.prediction, class_="prediction data")
    parts: list[str] = []
    view = len(example.attention)
    for one in example.words:
        if one.heat is None:
            parts += [one.word, " "]
            continue
        parts += [element("button", one.word, type="button", class_="word", aria_pressed="false", data_view=view), " "]
        view += 1
    return element("p", *parts, class_="prediction data")


def _references(task: TaskReport, example: Example) -> Markup:
    if task.labels.count_equal_references:
        counts = {text: list(example.references).count(text) for text in example.references}
        texts = [f"{text} × {count}" if count > 1 else text for text, count in counts.items()]
    else:
        texts = list(example.references)
    items = [element("li", text, class_="data") for text in texts]
    heading = element("p", task.labels.references, class_="heading")
    if len(items) > _SHOWN_REFERENCES + 1:
        more = element("summary", f"{len(items) - _SHOWN_REFERENCES} more")
        rest = element("details", more, element("ul", *items[_SHOWN_REFERENCES:]))
        return element("div", heading, element("ul", *items[:_SHOWN_REFERENCES]), rest, class_="references")
    return element("div", heading, element("ul", *items), class_="references")


def glance(chosen: Sequence[tuple[TaskReport, ChosenExample]], most: int = 6) -> Markup:
    """A strip of small images with what was predicted for them, each a link to its card.

    Args:
        chosen: The examples that are shown, with their tasks.
        most: Images.
    """
    cards: list[Markup] = []
    for task, choice in chosen:
        image = embed_image(choice.example.image, GLANCE_SIDE)
        if image is None or len(cards) == most:
            continue
        address = "#" + urlencode({"task": task.name, "find": choice.example.id}, errors="replace")
        text = element("span", choice.example.prediction or "(nothing)", class_="data")
        alt = f"image {choice.example.id}"
        shown = element("img", src=image.address, alt=alt, width=image.width, height=image.height, decoding="async")
        cards.append(element("a", shown, text, href=address))
    return element("div", *cards, class_="glance") if cards else Markup("")


def filter_form(tasks: Sequence[TaskReport], domains: Sequence[str], attention: bool) -> Markup:
    """The filters of the gallery: task, domain, choice, range of scores, text, order.

    Args:
        tasks: That have examples.
        domains: Of all examples, in order.
        attention: Whether any example has it.
    """
    labels = {task.name: task.format(task.example_metric).heading for task in tasks}

    def choice(name: str, label: str, options: list[Markup]) -> Markup:
        return element("label", element("span", label), element("select", *options, name=name, autocomplete="off"))

    every = [element("option", task.title, value=task.name, data_metric=labels[task.name]) for task in tasks]
    parts = [choice("task", "Task", [element("option", "all tasks", value=""), *every])]
    if domains:
        options = [element("option", domain, value=domain) for domain in domains]
        parts.append(choice("domain", "Domain", [element("option", "all", value=""), *options]))
    picks = [element("option", text, value=pick) for pick, text in _PICKS.items()]
    parts.append(choice("pick", "Choice", [element("option", "all", value=""), *picks]))

    def bound(name: str, label: str) -> Markup:
        return element("input", name=name, type="number", step="any", aria_label=label, placeholder=name)

    scores = element("div", bound("min", "lowest score"), "–", bound("max", "highest score"), class_="range")
    legend = element("legend", "Score", element("span", id="metric"))
    parts.append(element("fieldset", legend, scores, id="scores"))
    search = element("input", name="find", type="search", placeholder="text, or an id", autocomplete="off")
    parts.append(element("label", element("span", "Search"), search, class_="find"))
    orders = [element("option", "best first", value=""), element("option", "worst first", value="worst")]
    parts.append(choice("sort", "Order", orders))
    if attention:
        box = element("input", name="attention", type="checkbox", autocomplete="off")
        parts.append(element("label", box, element("span", "show attention"), class_="tick"))
    count = element("output", "", id="count", aria_live="polite")
    parts.append(element("div", count, element("button", "show all", type="reset"), class_="count"))
    return element("form", joined(*parts), id="filters", aria_label="Filter the examples")
