"""Searches the file that `embed` wrote: a line of JSON for each result."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blip2_train.cli.json_lines import Results, new_file
from blip2_train.cli.predict.loading import load_model
from blip2_train.cli.predict.options import lines_of
from blip2_train.data.storage.web import is_address, result_name
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import batches
from blip2_train.evaluation.search.index import read_index
from blip2_train.evaluation.search.searcher import Hit, Searcher
from blip2_train.system.extras import import_extra
from blip2_train.system.screen import echo

AT_ONCE = 64
"""Texts or images that are searched for at a time."""


def search(options: argparse.Namespace) -> None:
    """Print the nearest rows of an index for each text and each image.

    Raises:
        Blip2TrainError: for what cannot be done.
    """
    texts, images = lines_of(options.query, options.texts, "text"), list(options.image or ())
    if not texts and not images:
        raise ConfigError("nothing to search for; write a text, or pass --texts FILE or --image FILE")
    if options.rerank and options.rerank < options.top:
        raise ConfigError(f"--rerank {options.rerank} is less than --top {options.top}; re-rank at least as many")
    if options.faiss is not None:
        import_extra("faiss", f"--faiss {options.faiss}", "or leave --faiss out")
    path = None if options.output is None else new_file(options.output, options.overwrite)
    index_path = Path(options.index).expanduser()
    index = read_index(index_path)
    model, started = load_model(options), time.perf_counter()
    searcher = Searcher(model, index, faiss=options.faiss, what=index_path)
    with Results(path) as results:
        for rows in batches(len(texts), AT_ONCE):
            lists = searcher.by_texts(texts[rows], options.top, rerank=options.rerank)
            results.write(_records("text", texts[rows], lists, index.kind))
        for rows in batches(len(images), AT_ONCE):
            lists = searcher.by_images(images[rows], options.top, rerank=options.rerank)
            named = [result_name(image) if is_address(image) else image for image in images[rows]]
            results.write(_records("image", named, lists, index.kind))
    seconds = time.perf_counter() - started
    count = len(texts) + len(images)
    echo(f"{len(index):,} {index.kind}s searched, queries: {count}, {seconds:.1f} s", file=sys.stderr)


def _records(by: str, queries: list[str], lists: list[list[Hit]], kind: str) -> Iterable[dict[str, Any]]:
    for query, hits in zip(queries, lists, strict=True):
        for rank, hit in enumerate(hits, 1):
            scores = {"similarity": round(hit.similarity, 6)} | ({} if hit.itm is None else {"itm": round(hit.itm, 6)})
            yield {"query": query, "by": by, "rank": rank, kind: hit.name, **scores}
