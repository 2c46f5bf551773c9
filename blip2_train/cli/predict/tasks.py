"""The tasks of `predict.py`: from options to lines of JSON, a conversation, or a file of features."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_train.cli.json_lines import Bar, Results, new_file
from blip2_train.cli.predict.chat import converse
from blip2_train.cli.predict.images import BrokenImages, ImageList, read_batches
from blip2_train.cli.predict.loading import load_model
from blip2_train.cli.predict.options import generation_of, lines_of
from blip2_train.cli.predict.search import search
from blip2_train.data.official.candidates import read_candidates
from blip2_train.data.printable_names import printable_name
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import ANSWERING, CAPTIONING, batches, generation_options
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.prompts import question_template
from blip2_train.evaluation.search.feature_file import FeatureFile
from blip2_train.evaluation.search.index_record import model_fingerprint
from blip2_train.system.screen import echo

Records = list[list[dict[str, Any]]]
"""For each image what is written about it."""
Work = Callable[[list[Tensor], int], Records]
"""Makes the records of images, from them and the index of the first."""


def perform(options: argparse.Namespace) -> None:
    """Load the model, then do the task image by image.

    Raises:
        Blip2TrainError: at once for what cannot be done, at the end if some images could not be read.
    """
    try:
        {"chat": _chat, "embed": _embed, "search": search}.get(options.task, _lines)(options)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"the device has too little memory for --batch-size {getattr(options, 'batch_size', 1)}; lower it, or "
            "choose --dtype bfloat16 or --quantization int8"
        ) from None


def _lines(options: argparse.Namespace) -> None:
    """Caption, answer and match: lines of JSON about each image."""
    make = {"caption": _caption, "answer": _answer, "match": _match}[options.task](options)
    images, broken = _images(options.images), BrokenImages()
    path = None if options.output is None else new_file(options.output, options.overwrite)
    model, started = load_model(options), time.perf_counter()
    work = make(model)
    with Results(path) as results, Bar(len(images), path is None and sys.stdout.isatty()) as bar:
        for batch in read_batches(images, model.processor, options.batch_size):
            good = [image.pixel_values for image in batch if image.pixel_values is not None]
            made = iter(work(good, batch[0].number) if good else [])
            records = [broken.add(image) if image.pixel_values is None else next(made) for image in batch]
            named = zip(batch, records, strict=True)
            results.write({"image": str(image.path), **record} for image, about in named for record in about)
            bar.advance(len(batch))
    _print_end(len(images), broken, time.perf_counter() - started)


def _caption(options: argparse.Namespace) -> Callable[[Blip2], Work]:
    if options.prompt is not None and not options.prompt.strip():
        raise ConfigError("--prompt is empty; write a text, leave it out for the model's own, or pass --no-prompt")
    prompt, generation = "" if options.no_prompt else options.prompt, generation_of(options)
    generation_options(CAPTIONING, generation)  # errors come before the model is loaded

    def make(model: Blip2) -> Work:
        def work(images: list[Tensor], first: int) -> Records:
            size, seed = len(images), options.seed + first
            captions = model.caption(images, prompt=prompt, batch_size=size, seed=seed, **generation)
            return [[{"caption": text}] for text in captions]

        return work

    return make


def _answer(options: argparse.Namespace) -> Callable[[Blip2], Work]:
    questions = lines_of(options.question, options.questions, "question")
    if not questions:
        raise ConfigError("no question is given; pass --question TEXT, or --questions FILE")
    generation_options(ANSWERING, generation_of(options))
    question_template(options.prompt, "", encoder_decoder=False)
    generation = generation_of(options) | {"prompt": options.prompt, "clean": not options.as_typed}
    if options.candidates is not None:
        generation["candidates"] = read_candidates(options.candidates)

    def make(model: Blip2) -> Work:
        def work(images: list[Tensor], first: int) -> Records:
            size, seed, count = len(images), options.seed + first, len(questions)
            pairs = [image for image in images for _ in questions], list(questions) * size  # image by image
            answers = model.answer(*pairs, batch_size=size, seed=seed, **generation)
            rows = [answers[start : start + count] for start in range(0, len(answers), count)]
            return [[{"question": q, "answer": a} for q, a in zip(questions, row, strict=True)] for row in rows]

        return work

    return make


def _match(options: argparse.Namespace) -> Callable[[Blip2], Work]:
    texts = lines_of(options.text, options.texts, "text")
    if not texts:
        raise ConfigError("no text is given; pass --text TEXT, or --texts FILE")

    def make(model: Blip2) -> Work:
        def work(images: list[Tensor], first: int) -> Records:
            rows = zip(*(part.tolist() for part in model.match(images, texts, batch_size=len(images))), strict=True)
            return [
                [{"text": t, "itc": round(c, 6), "itm": round(m, 6)} for t, c, m in zip(texts, *row, strict=True)]
                for row in rows
            ]

        return work

    return make


def _chat(options: argparse.Namespace) -> None:
    if len(images := ImageList([options.image])) != 1:
        raise ConfigError(f"{options.image} holds {len(images)} images; a conversation is about one")
    generation = generation_of(options)
    generation_options(CAPTIONING, generation)
    question_template(options.prompt, "", encoder_decoder=False)
    model = load_model(options)
    pixels = model.processor.image(next(iter(images)))
    converse(
        lambda rounds, message: model.chat(
            pixels, rounds, message, prompt=options.prompt, seed=options.seed + len(rounds), **generation
        )
    )


def _embed(options: argparse.Namespace) -> None:
    features, broken = FeatureFile(new_file(options.output, options.overwrite)), BrokenImages()
    texts = lines_of(None if options.text is None else [options.text], options.texts, "text")
    if not options.images and not texts:
        raise ConfigError("nothing to embed; name images, or pass --text TEXT or --texts FILE")
    images = _images(options.images) if options.images else None
    count = len(texts) if images is None else len(images)
    if options.text is not None and options.texts is None:
        texts = texts * count
    if texts and len(texts) != count:
        raise ConfigError(f"{count} images, but {len(texts)} texts; give one per image, or one --text for all")
    model, started = load_model(options), time.perf_counter()
    if model.network.matches_texts:
        features.model, features.source = model_fingerprint(model), model.source
    with features as file, Bar(count, hidden=False) as bar:
        for rows in batches(count if images is None else 0, options.batch_size):
            file.add(model.embed(texts=texts[rows]), {"text": texts[rows]})
            bar.advance(len(texts[rows]))
        for batch in read_batches(images or (), model.processor, options.batch_size):
            good = [image for image in batch if image.pixel_values is not None]
            paired = [texts[image.number] for image in good] if texts else None
            if good:
                pixels = [image.pixel_values for image in good if image.pixel_values is not None]
                labels = {"image": [printable_name(str(image.path)) for image in good]} | (
                    {"text": paired} if paired else {}
                )
                file.add(model.embed(pixels, paired, batch_size=len(good)), labels)
            for image in batch:
                if image.pixel_values is None:
                    echo(f"left out: {broken.add(image)[0]['error']}", file=sys.stderr)
            bar.advance(len(batch))
    _print_end(count, broken, time.perf_counter() - started, "texts" if images is None else "images")


def _images(paths: Sequence[str]) -> ImageList:
    images = ImageList(paths)
    if images.passed_over:
        echo(f"{len(images)} images, {images.passed_over}", file=sys.stderr)
    return images


def _print_end(count: int, broken: BrokenImages, seconds: float, what: str = "images") -> None:
    echo(f"{count - broken.total} {what} in {seconds:.1f} s", file=sys.stderr)
    broken.complain(count)
