"""The tasks of `predict.py`: from options to lines of JSON, a conversation, or a file of features."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_train.cli.predict_chat import converse
from blip2_train.cli.predict_features import FeatureFile
from blip2_train.cli.predict_options import generation_of, lines_of
from blip2_train.cli.predict_output import Bar, Results, new_file
from blip2_train.cli.predict_pictures import BrokenPictures, PictureList, read_batches
from blip2_train.cli.pretrained import load_pretrained
from blip2_train.cli.run_folder import find_source
from blip2_train.data.names import printable_name
from blip2_train.data.official.candidates import read_candidates
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.prompts import question_template
from blip2_train.evaluation.writing import ANSWERING, CAPTIONING, batches, generation_options
from blip2_train.screen import echo

Records = list[list[dict[str, Any]]]
"""For each picture what is written about it."""
Work = Callable[[list[Tensor], int], Records]
"""From pictures and the number of the first to what is written."""


def perform(options: argparse.Namespace) -> None:
    """Load the model, then do the task picture by picture.

    Raises:
        Blip2TrainError: at once for what cannot be done, at the end if some pictures could not be read.
    """
    try:
        {"chat": _chat, "embed": _embed}.get(options.task, _lines)(options)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"the device has too little memory for --batch-size {getattr(options, 'batch_size', 1)}; lower it, or "
            "choose --dtype bfloat16 or --quantization int8"
        ) from None


def _lines(options: argparse.Namespace) -> None:
    """Caption, answer and match: lines of JSON about each picture."""
    make = {"caption": _caption, "answer": _answer, "match": _match}[options.task](options)
    pictures, broken = _pictures(options.pictures), BrokenPictures()
    path = None if options.output is None else new_file(options.output, options.overwrite)
    model, started = _load(options), time.perf_counter()
    work = make(model)
    with Results(path) as results, Bar(len(pictures), path is None and sys.stdout.isatty()) as bar:
        for batch in read_batches(pictures, model.processor, options.batch_size):
            good = [picture.pixel_values for picture in batch if picture.pixel_values is not None]
            found = iter(work(good, batch[0].number) if good else [])
            records = [broken.add(picture) if picture.pixel_values is None else next(found) for picture in batch]
            named = zip(batch, records, strict=True)
            results.write({"image": str(picture.path), **record} for picture, about in named for record in about)
            bar.advance(len(batch))
    _told(len(pictures), broken, time.perf_counter() - started)


def _caption(options: argparse.Namespace) -> Callable[[Blip2], Work]:
    if options.prompt is not None and not options.prompt.strip():
        raise ConfigError("--prompt is empty; write words, leave it out for the model's own, or say --no-prompt")
    prompt, generation = "" if options.no_prompt else options.prompt, generation_of(options)
    generation_options(CAPTIONING, generation)  # what is wrong is said before the model is loaded

    def make(model: Blip2) -> Work:
        def work(pictures: list[Tensor], first: int) -> Records:
            size, seed = len(pictures), options.seed + first
            said = model.caption(pictures, prompt=prompt, batch_size=size, seed=seed, **generation)
            return [[{"caption": text}] for text in said]

        return work

    return make


def _answer(options: argparse.Namespace) -> Callable[[Blip2], Work]:
    questions = lines_of(options.question, options.questions, "question")
    if not questions:
        raise ConfigError("no question is given; say --question TEXT, or --questions FILE")
    generation_options(ANSWERING, generation_of(options))
    question_template(options.prompt, "", encoder_decoder=False)
    generation = generation_of(options) | {"prompt": options.prompt, "clean": not options.as_typed}
    if options.candidates is not None:
        generation["candidates"] = read_candidates(options.candidates)

    def make(model: Blip2) -> Work:
        def work(pictures: list[Tensor], first: int) -> Records:
            records: Records = [[] for _ in pictures]
            for question in questions:
                size, seed = len(pictures), options.seed + first
                said = model.answer(pictures, question, batch_size=size, seed=seed, **generation)
                for record, answer in zip(records, said, strict=True):
                    record.append({"question": question, "answer": answer})
            return records

        return work

    return make


def _match(options: argparse.Namespace) -> Callable[[Blip2], Work]:
    texts = lines_of(options.text, options.texts, "text")
    if not texts:
        raise ConfigError("no text is given; say --text TEXT, or --texts FILE")

    def make(model: Blip2) -> Work:
        def work(pictures: list[Tensor], first: int) -> Records:
            rows = zip(*(part.tolist() for part in model.match(pictures, texts, batch_size=len(pictures))), strict=True)
            return [
                [{"text": t, "itc": round(c, 6), "itm": round(m, 6)} for t, c, m in zip(texts, *row, strict=True)]
                for row in rows
            ]

        return work

    return make


def _chat(options: argparse.Namespace) -> None:
    if len(pictures := PictureList([options.picture])) != 1:
        raise ConfigError(f"{options.picture} holds {len(pictures)} pictures; a conversation is about one")
    generation = generation_of(options)
    generation_options(CAPTIONING, generation)
    question_template(options.prompt, "", encoder_decoder=False)
    model = _load(options)
    pixels = model.processor.image(next(iter(pictures)))
    converse(
        lambda turns, message: model.chat(
            pixels, turns, message, prompt=options.prompt, seed=options.seed + len(turns), **generation
        )
    )


def _embed(options: argparse.Namespace) -> None:
    features, broken = FeatureFile(new_file(options.output, options.overwrite)), BrokenPictures()
    texts = lines_of(None if options.text is None else [options.text], options.texts, "text")
    if not options.pictures and not texts:
        raise ConfigError("nothing to embed; name pictures, or say --text TEXT or --texts FILE")
    pictures = _pictures(options.pictures) if options.pictures else None
    count = len(texts) if pictures is None else len(pictures)
    if options.text is not None and options.texts is None:
        texts = texts * count
    if texts and len(texts) != count:
        raise ConfigError(f"{count} pictures, but {len(texts)} texts; give one per picture, or one --text for all")
    model, started = _load(options), time.perf_counter()
    with features as file, Bar(count, hidden=False) as bar:
        for rows in batches(count if pictures is None else 0, options.batch_size):
            file.add(model.embed(texts=texts[rows]), {"text": texts[rows]})
            bar.advance(len(texts[rows]))
        for batch in read_batches(pictures or (), model.processor, options.batch_size):
            good = [picture for picture in batch if picture.pixel_values is not None]
            words = [texts[picture.number] for picture in good] if texts else None
            if good:
                pixels = [picture.pixel_values for picture in good if picture.pixel_values is not None]
                labels = {"image": [printable_name(str(picture.path)) for picture in good]} | (
                    {"text": words} if words else {}
                )
                file.add(model.embed(pixels, words, batch_size=len(good)), labels)
            for picture in batch:
                if picture.pixel_values is None:
                    echo(f"left out: {broken.add(picture)[0]['error']}", file=sys.stderr)
            bar.advance(len(batch))
    _told(count, broken, time.perf_counter() - started, "texts" if pictures is None else "pictures")


def _pictures(places: Sequence[str]) -> PictureList:
    pictures = PictureList(places)
    if pictures.passed_over:
        echo(f"{len(pictures)} pictures, {pictures.passed_over}", file=sys.stderr)
    return pictures


def _load(options: argparse.Namespace) -> Blip2:
    model, _ = load_pretrained(
        find_source(options.model, "outputs", "--model"),
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
        language_model=options.language_model,
        vision_weights=options.vision_weights,
        tokenizer=options.tokenizer,
    )
    echo(f"model: {model.source} on {model.device}", file=sys.stderr)
    slow = any(parameter.dtype == torch.float16 for parameter in model.network.parameters())
    if slow and model.device.type == "cpu" and options.dtype is None:
        echo("its float16 is slow on a CPU: --dtype bfloat16 or float32 is faster", file=sys.stderr)
    return model


def _told(count: int, broken: BrokenPictures, seconds: float, what: str = "pictures") -> None:
    echo(f"{count - broken.total} {what} in {seconds:.1f} s", file=sys.stderr)
    broken.complain(count)
