"""The tasks of `predict.py`: from options to lines of JSON, a conversation, or a file of features."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blip2_train.cli.json_lines import new_file
from blip2_train.cli.phase_progress import Bar
from blip2_train.cli.predict.chat import converse
from blip2_train.cli.predict.images import ImageList, Progress, read_batches
from blip2_train.cli.predict.loading import load_model
from blip2_train.cli.predict.options import generation_of, lines_of
from blip2_train.cli.predict.search import search
from blip2_train.cli.predict.tables import Columns, open_results, wide, wide_columns
from blip2_train.data.official.candidates import read_candidates
from blip2_train.data.printable_names import printable_name
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import ANSWERING, CAPTIONING, batches, generation_options
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.prompts import question_template
from blip2_train.evaluation.search.feature_file import FeatureFile
from blip2_train.evaluation.search.index_record import model_fingerprint
from blip2_train.evaluation.streaming import check_streams, streaming_defaults
from blip2_train.system.screen import echo

Records = list[list[dict[str, Any]]]
"""For each image what is written about it."""
Work = Callable[[list[Tensor], int], Records]
"""Makes the records of images, from them and the index of the first."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done with each image."""

    make: Callable[[Blip2], Work]
    columns: Columns
    """Of the records."""
    keys: Sequence[str] = ()
    """Fields that tell the records of an image apart."""
    labels: Sequence[dict[str, Any]] = ()
    """Their values in each record of an image."""

    def arranged(self, records: list[dict[str, Any]], table: bool) -> list[dict[str, Any]]:
        """The records of an image, or one row of them all."""
        return wide(records, self.keys) if table else records


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
    """Caption, answer and match: lines of JSON, or rows of a table, about each image."""
    task = {"caption": _caption, "answer": _answer, "match": _match}[options.task](options)
    images, done = ImageList(options.images, options.image_column, options.image_folder), Progress()
    path = None if options.output is None else new_file(options.output, options.overwrite)
    columns = wide_columns(task.columns, task.labels, task.keys) if options.table else task.columns
    output = open_results(path, columns)
    model, started = load_model(options), time.perf_counter()
    work = task.make(model)
    with output as results, Bar(images.count, path is None and sys.stdout.isatty()) as bar:
        for batch in read_batches(images, model.processor, options.batch_size):
            good = [image.pixel_values for image in batch if image.pixel_values is not None]
            made = iter(work(good, batch[0].number) if good else [])
            records = [done.add(image) if image.pixel_values is None else next(made) for image in batch]
            named = zip(batch, (task.arranged(about, options.table) for about in records), strict=True)
            results.write({"image": image.name, **record} for image, about in named for record in about)
            done.total += len(batch)
            bar.advance(len(batch))
    done.close(images, time.perf_counter() - started)


def _caption(options: argparse.Namespace) -> Task:
    given = lines_of(options.prompt, options.prompts, "prompt")
    if options.no_prompt and given:
        raise ConfigError("--no-prompt goes with no other prompt; leave it out, or the prompts")
    prompts: list[str | None] = ["" if options.no_prompt else None] if not given else list(given)
    generation = generation_of(options)
    generation_options(CAPTIONING, generation)  # errors come before the model is loaded
    count = generation.get("num_return_sequences", 1)
    labels = [
        ({"prompt": prompt} if len(prompts) > 1 else {}) | ({"number": number} if count > 1 else {})
        for prompt in prompts
        for number in range(1, count + 1)
    ]

    def make(model: Blip2) -> Work:
        def work(images: list[Tensor], first: int) -> Records:
            size, seed, each = len(images), options.seed + first, len(labels)
            pairs = images if len(prompts) == 1 else [image for image in images for _ in prompts]  # image by image
            starts = prompts[0] if len(prompts) == 1 else [prompt or "" for prompt in prompts] * size
            texts = model.caption(pairs, prompt=starts, batch_size=size, seed=seed, **generation)
            rows = [texts[start : start + each] for start in range(0, len(texts), each)]
            return [[{**about, "caption": text} for about, text in zip(labels, row, strict=True)] for row in rows]

        return work

    keys = {"prompt": str} if len(prompts) > 1 else {}
    numbered = {"number": int} if count > 1 else {}
    return Task(make=make, columns={**keys, **numbered, "caption": str}, keys=["prompt", "number"], labels=labels)


def _answer(options: argparse.Namespace) -> Task:
    questions = lines_of(options.question, options.questions, "question")
    if not questions:
        raise ConfigError("no question is given; pass --question TEXT, or --questions FILE")
    generation_options(ANSWERING, generation_of(options))
    question_template(options.prompt, "", encoder_decoder=False)
    generation = generation_of(options) | {"prompt": options.prompt, "clean": not options.as_typed}
    count = generation.get("num_return_sequences", 1)
    if options.candidates is not None:
        generation["candidates"] = read_candidates(options.candidates)
    labels = [
        {"question": question} | ({"number": number} if count > 1 else {})
        for question in questions
        for number in range(1, count + 1)
    ]

    def make(model: Blip2) -> Work:
        def work(images: list[Tensor], first: int) -> Records:
            size, seed, each = len(images), options.seed + first, len(labels)
            pairs = [image for image in images for _ in questions], list(questions) * size  # image by image
            answers = model.answer(*pairs, batch_size=size, seed=seed, **generation)
            rows = [answers[start : start + each] for start in range(0, len(answers), each)]
            return [[{**about, "answer": text} for about, text in zip(labels, row, strict=True)] for row in rows]

        return work

    numbered = {"number": int} if count > 1 else {}
    columns = {"question": str, **numbered, "answer": str}
    return Task(make=make, columns=columns, keys=["question", "number"], labels=labels)


def _match(options: argparse.Namespace) -> Task:
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

    columns = {"text": str, "itc": float, "itm": float}
    return Task(make=make, columns=columns, keys=["text"], labels=[{"text": text} for text in texts])


def _chat(options: argparse.Namespace) -> None:
    images = list(itertools.islice(ImageList([options.image]), 2))
    if len(images) != 1:
        held = "no image" if not images else "more than one image"
        raise ConfigError(f"{options.image} holds {held}; a conversation is about one")
    generation = generation_of(options)
    chosen = generation_options(CAPTIONING | streaming_defaults(options.stream), generation)
    if options.stream:
        check_streams(chosen, 1)
    question_template(options.prompt, "", encoder_decoder=False)
    model = load_model(options)
    pixels = model.processor.image(images[0].content)
    converse(
        lambda rounds, message: model.chat(
            pixels,
            rounds,
            message,
            prompt=options.prompt,
            seed=options.seed + len(rounds),
            stream=options.stream,
            **generation,
        )
    )


def _embed(options: argparse.Namespace) -> None:
    features, done = FeatureFile(new_file(options.output, options.overwrite)), Progress()
    texts = lines_of(None if options.text is None else [options.text], options.texts, "text")
    if not options.images and not texts:
        raise ConfigError("nothing to embed; name images, or pass --text TEXT or --texts FILE")
    images = ImageList(options.images, options.image_column, options.image_folder) if options.images else None
    count = len(texts) if images is None else images.count
    for_all = texts[0] if options.text is not None and options.texts is None else None
    if images is not None and texts and for_all is None:
        if count is None:
            raise ConfigError("--texts needs images whose number is known; give image files or folders, or one --text")
        if len(texts) != count:
            raise ConfigError(f"{count} images, but {len(texts)} texts; give one per image, or one --text for all")
    model, started = load_model(options), time.perf_counter()
    if model.network.matches_texts:
        features.model, features.source = model_fingerprint(model), model.source
    elif not texts:
        echo("these features cannot be searched: that takes a model of images and texts (stage 1)", file=sys.stderr)
    with features as file, Bar(count, hidden=False) as bar:
        for rows in batches(len(texts) if images is None else 0, options.batch_size):
            file.add(model.embed(texts=texts[rows]), {"text": texts[rows]})
            done.total += len(texts[rows])
            bar.advance(len(texts[rows]))
        for batch in read_batches(images or (), model.processor, options.batch_size):
            good = [image for image in batch if image.pixel_values is not None]
            paired = [for_all or texts[image.number] for image in good] if texts else None
            if good:
                pixels = [image.pixel_values for image in good if image.pixel_values is not None]
                labels = {"image": [printable_name(image.name) for image in good]} | (
                    {"text": paired} if paired else {}
                )
                file.add(model.embed(pixels, paired, batch_size=len(good)), labels)
            for image in batch:
                if image.pixel_values is None:
                    echo(f"left out: {done.add(image)[0]['error']}", file=sys.stderr)
            done.total += len(batch)
            bar.advance(len(batch))
    done.close(images, time.perf_counter() - started, "texts" if images is None else "images")
