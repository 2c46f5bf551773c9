"""What a tab calls is what the shown program calls: run in Python it prints the same."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_exports import write_exports

from blip2_train.app.asking import Reply, Talk, next_answer, short_answer
from blip2_train.app.browsing import data_code, look_at, open_set
from blip2_train.app.captioning import TextSettings, caption_call
from blip2_train.app.comparing import calls, check_two, compare, comparing_code
from blip2_train.app.examples import Example, write_examples
from blip2_train.app.matching import lines_of, match_call, query_views, text_scores, word_views
from blip2_train.app.searching import (
    FolderIndices,
    by_image_code,
    by_text_code,
    images_of_text,
    lines_of_hit,
    search_code,
)
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.evaluation.inference import Blip2
from blip2_train.pretrained import load_pretrained


class World:
    """Models, and examples in a folder."""

    def __init__(self, folder: Path) -> None:
        self.sources = write_exports(folder / "exports")
        self.models: dict[str, Blip2] = {
            name: load_pretrained(path, device="cpu")[0] for name, path in self.sources.items()
        }
        self.folder = folder / "images"
        self.examples: list[Example] = write_examples(self.folder, 6)
        self.image = str(self.examples[0].image)

    def printed(self, code: str) -> str:
        """What a program prints, run where the images lie."""
        output, before = io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(output):
                exec(compile(code, "shown", "exec"), {})
        finally:
            os.chdir(before)
        return output.getvalue().rstrip("\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("app"))


SAMPLED = TextSettings(sampled=True, top_p=0.7, temperature=1.5, max_new_tokens=6, repetition_penalty=1.1, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "stage1"])
@pytest.mark.parametrize(("settings", "count"), [(TextSettings(num_beams=2, max_new_tokens=4), 1), (SAMPLED, 3)])
def test_captions(world: World, kind: str, settings: TextSettings, count: int) -> None:
    if kind == "stage1" and settings.repetition_penalty != 1:
        settings = TextSettings(sampled=True, max_new_tokens=12, seed=4)
    call = caption_call(world.image, settings, count=count)
    made = call.run(world.models[kind])
    assert len(made) == count
    assert world.printed(call.code(world.sources[kind])) == str(made)


def test_only_what_was_set_is_passed_on() -> None:
    assert TextSettings().arguments() == {}
    assert caption_call("a.jpg", TextSettings(), prompt=" ").arguments == {}
    given = TextSettings(num_beams=3, length_penalty=0.5, min_new_tokens=2, top_p=0.1, temperature=2).arguments()
    assert given == {"num_beams": 3, "min_new_tokens": 2, "length_penalty": 0.5}


def test_captions_that_cannot_be_requested() -> None:
    with pytest.raises(ConfigError, match="there is no image yet; drop one, or click on an example"):
        caption_call(None, TextSettings())
    with pytest.raises(ConfigError, match="beam search finds one caption; choose sampling for several"):
        caption_call("a.jpg", TextSettings(), count=2)


@pytest.mark.slow
def test_answers(world: World) -> None:
    model, settings = world.models["opt"], TextSettings(max_new_tokens=4)
    alone = short_answer(model, world.image, world.examples[0].question, settings)
    assert world.printed(alone.call.code(world.sources["opt"])) == str([alone.answer])
    rounds = [("what is it?", "a chair"), ('a "red" one?', "yes")]
    (talk,) = next_answer(model, world.image, rounds, "why?", settings)
    assert talk.dropped == 0 and world.printed(talk.call.code(world.sources["opt"])) == talk.answer
    long = [(f"is it {' '.join(['very'] * 30)} red?", "no")] * 8
    (short,) = next_answer(model, world.image, long, "why?", settings)
    assert 0 < short.dropped < 8 and len(short.call.arguments["turns"]) == 8 - short.dropped
    with pytest.raises(PromptTooLong):
        next(next_answer(model, world.image, [], "very " * 3000, settings))
    with pytest.raises(ConfigError, match="needs a generative model"):
        short_answer(world.models["stage1"], world.image, "why?", settings)


def test_a_conversation_that_was_ended_does_not_come_back() -> None:
    talk = Talk()
    call = caption_call("a.jpg", TextSettings())
    assert len(list(talk.answered(" why? ", iter([Reply("so", call)])))) == 1
    assert talk.rounds == [("why?", "so")]
    answers = talk.answered("and?", (Reply(part, call) for part in ("a", "a b", "a b c")))
    assert next(answers).answer == "a" and talk.rounds == [("why?", "so"), ("and?", "a")]
    fresh = talk.anew()
    assert list(answers) == [None], "what comes after the end is not shown"
    assert talk.ended and not fresh.ended and fresh.rounds == []
    assert talk.rounds != [] and talk.shown == [], "also when its last part is sent once more"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_answers_are_shown_while_they_are_generated(world: World, kind: str) -> None:
    model, settings = world.models[kind], TextSettings(max_new_tokens=12, min_new_tokens=10)
    replies = list(next_answer(model, world.image, [("what is it?", "a chair")], "why?", settings, stream=True))
    assert len(replies) > 1
    assert all(later.answer.startswith(sooner.answer) for sooner, later in itertools.pairwise(replies))
    assert world.printed(replies[-1].call.code(world.sources[kind])) == replies[-1].answer
    with pytest.raises(ConfigError, match="num_beams 3 finds its text only at the end"):
        next(next_answer(model, world.image, [], "why?", TextSettings(num_beams=3), stream=True))


def test_matching(world: World) -> None:
    model, lines = world.models["stage1"], lines_of(world.examples[0].texts)
    call = match_call(world.image, lines)
    scored = text_scores(model, call)
    assert sorted(row.text for row in scored) == sorted(lines) and len(lines) == 4
    assert [row.itm for row in scored] == sorted((row.itm for row in scored), reverse=True)
    direct = model.match(world.image, lines)
    assert {row.text: row.itc for row in scored} == dict(zip(lines, direct.itc[0].tolist(), strict=True))
    assert world.printed(call.code(world.sources["stage1"])) == str(direct)
    with pytest.raises(ConfigError, match="match needs an image-text model"):
        text_scores(world.models["opt"], call)
    with pytest.raises(ConfigError, match="there is no text; write one in each line"):
        lines_of(" \n\n")
    with pytest.raises(ConfigError, match="there are 201 texts; the page takes 200"):
        lines_of("a\n" * 201)


def test_maps_of_words_and_queries(world: World) -> None:
    model, image = world.models["stage1"], Path(world.image)
    words = word_views(model, image, "A teapot, and a peacock!")
    assert [view.label for view in words] == ["a", "teapot", ",", "and", "a", "peacock"]
    assert {view.image.size for view in words} == {(320, 320)}
    assert len({view.image.tobytes() for view in words}) > 1
    queries = query_views(model, image, "a teapot")
    assert queries[0].label.startswith("mean of queries, ≤ ") and len(queries) == 6
    with pytest.raises(ConfigError, match="needs an image-text model"):
        word_views(world.models["opt"], image, "a teapot")


@pytest.mark.slow
def test_search(world: World) -> None:
    model, progress = world.models["stage1"], list[tuple[int, int]]()
    indices = FolderIndices(model)
    folder = indices.read(world.folder, lambda *done: progress.append(done))
    assert progress == [(6, 6)] and folder.summary == "6 images"
    assert indices.read(world.folder) is folder, "nothing has changed"
    source, folder_name = world.sources["stage1"], str(world.folder)
    counts = "6 images, 0 unreadable, 0 passed over"
    for rerank in (False, True):
        hits = images_of_text(folder, "a teapot", 3, rerank)
        code = search_code(source, folder_name, by_text_code("a teapot", 3, rerank))
        assert world.printed(code).splitlines() == [counts, *(f"{hit.name} {hit.similarity} {hit.itm}" for hit in hits)]
    assert [hit.itm for hit in hits] == pytest.approx(
        sorted(model.match([hit.name for hit in hits], "a teapot").itm[:, 0].tolist(), reverse=True)
    )
    image = world.examples[2].image
    like = folder.searcher.by_images(image, 2)[0]
    assert like[0].name == str(image) and like[0].similarity == pytest.approx(1.0)
    code = search_code(source, folder_name, by_image_code(image, 2))
    assert world.printed(code).splitlines() == [counts, *(f"{hit.name} {hit.similarity} {hit.itm}" for hit in like)]
    assert lines_of_hit(hits[0]._replace(itm=0.5, similarity=0.25))[1:] == ["ITM 50.0 %", "cosine 0.250"]
    assert lines_of_hit(like[0]) == ["scene_2.jpg", "cosine 1.000"]


def test_a_file_is_read_again_only_if_it_changed(world: World, tmp_path: Path) -> None:
    indices, progress = FolderIndices(world.models["stage1"]), list[tuple[int, int]]()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(world.examples[0].image.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    first = indices.read(tmp_path, lambda *done: progress.append(done))
    assert first.summary == "2 images, 1 unreadable, 1 passed over: 1 .txt file"
    (tmp_path / "a.jpg").write_bytes(world.examples[1].image.read_bytes())
    second = indices.read(tmp_path, lambda *done: progress.append(done))
    assert progress == [(3, 3), (2, 2)], "the changed one, and the one that cannot be read"
    before, after = first.searcher.index.features, second.searcher.index.features
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    printed = world.printed(search_code(world.sources["stage1"], str(tmp_path), by_text_code("a teapot", 2, False)))
    hits = images_of_text(second, "a teapot", 2, rerank=False)
    assert printed.splitlines() == [
        "2 images, 1 unreadable, 1 passed over",
        *(f"{hit.name} {hit.similarity} {hit.itm}" for hit in hits),
    ]


def test_folders_that_cannot_be_searched(world: World, tmp_path: Path) -> None:
    indices = FolderIndices(world.models["stage1"])
    with pytest.raises(ConfigError, match="there is no folder"):
        indices.read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no image found in"):
        indices.read(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"none of the 1 images in .* can be read: .*broken.png is no image"):
        indices.read(tmp_path)
    with pytest.raises(ConfigError, match="search needs an image-text model"):
        FolderIndices(world.models["opt"])


def test_two_models_side_by_side(world: World) -> None:
    first, second = world.models["opt"], world.models["stage1"]
    tasks = calls(world.image, "what is it?", ["a teapot", "a dog"])
    rows = compare(first, second, tasks)
    assert [row.task for row in rows] == ["caption", "what is it?", "a teapot", "a dog"]
    assert rows[0].first == first.caption(world.image)[0] and rows[0].second == second.caption(world.image)[0]
    assert rows[1].first == first.answer(world.image, "what is it?")[0]
    assert rows[1].second == "– (this is an image-text model (stage 1))"
    itc, itm = second.match(world.image, "a dog")
    assert rows[3].first == "– (this is a generative model (stage 2))"
    assert rows[3].second == f"ITM {100 * float(itm):.1f} % · ITC {float(itc):.3f}"
    assert [task for task, _ in calls(world.image, " ", [])] == ["caption"]
    loading = [f'b2.load_pretrained("{world.sources[kind]}", device="cpu")' for kind in ("opt", "stage1")]
    code = comparing_code(list(zip((first, second), loading, strict=True)), tasks)
    made = [[rows[0].first], [rows[0].second], [rows[1].first], second.match(world.image, ["a teapot", "a dog"])]
    assert world.printed(code) == "\n".join(map(str, made)), "caption, answer and scores, of whom can give them"
    assert code.count("load_pretrained") == 2
    assert "# other does no answer: this is an image-text model (stage 1)" in code
    of_questions = first.reading(replace(first.processor, prompt="Question: {} Answer:"))
    (row,) = compare(of_questions, second, calls(world.image, "", []))
    assert row.first.startswith("– (this model was trained to answer questions") and row.second == rows[0].second
    with pytest.raises(ConfigError, match="both models are x; choose two different ones"):
        check_two("x", "x")


def written(folder: Path, image: bytes) -> Path:
    """An annotation file with a good image, a broken one, a missing one, and an unknown word."""
    (folder / "good.jpg").write_bytes(image)
    (folder / "broken.jpg").write_bytes(b"no image")
    lines = ["image,caption", "good.jpg,a teapot", "broken.jpg,a dog", "absent.jpg,a cat", "good.jpg,żółć źrebię"]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "mine.csv"


def test_what_a_set_holds(world: World, tmp_path: Path) -> None:
    path = written(tmp_path, world.examples[0].image.read_bytes())
    source = open_set(str(path), "", tmp_path)
    page = look_at(source, 0, 12, 200, world.models["stage1"].processor.own_tokenizer)
    assert page.total == page.looked_at == len(source)
    assert [sample.captions[0] for sample in page.samples][:1] == ["a teapot"]
    assert {"unreadable image", "missing image"} <= set(page.reasons)
    assert page.unknown is not None and page.unknown.unknown > 0
    loading = f'b2.load_pretrained("{world.sources["stage1"]}", device="cpu")'
    shown = world.printed(data_code(str(path), "", 0, 12, 200, loading)).splitlines()
    for rejected in (*page.rejected, *page.left_out):
        assert f"{rejected.source} {rejected.key} {rejected.reason} {rejected.detail}" in shown
    assert shown[0].startswith("0 (96, 96) a teapot")
    assert shown[-2:] == [f"{len(source)} samples, looked at: {len(source)} with {page.captions} captions",
                          str(page.unknown)]  # fmt: skip
    with pytest.raises(ConfigError, match=r"there is no sample 99; the set has samples 0 … \d"):
        look_at(source, 99, 12, 200)


def test_the_embedded_world_can_be_browsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = look_at(open_set("the emoji scenes", "", tmp_path), 5, 3, 0)
    assert [sample.index for sample in page.samples] == [5, 6, 7] and page.total == 24_000
    assert len(page.samples[0].captions) == 5 and not page.rejected and page.unknown is None
    monkeypatch.chdir(tmp_path)
    exec(data_code("the emoji scenes", "", 5, 3, 0), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["5", "6", "7"] and page.samples[0].captions[4] in lines[0]
    assert lines[3:] == ["24000 samples, looked at: 3 with 15 captions", "no tokenizer was asked"]


@pytest.mark.parametrize("name", ["/no/such/shards", "pipe:touch ran", "/no/such.csv"])
def test_sets_that_cannot_be_opened(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ShardError, ConfigError)):
        open_set(name, "", tmp_path)
    assert not (tmp_path / "ran").exists(), "nothing that is typed is executed"


def test_the_program_names_the_image_without_its_folder() -> None:
    arguments: dict[str, Any] = {"num_beams": 2}
    code = caption_call("/tmp/somewhere/my cat.jpg", TextSettings(**arguments)).code("last:mine", "cuda", "bfloat16")
    assert code.splitlines()[2:] == [
        'model, processor = b2.load_pretrained("last:mine", device="cuda", dtype="bfloat16")',
        'print(model.caption("my cat.jpg", num_beams=2))',
    ]
