"""The official data sets: their files, with paths, origins and expected content.

Source of the counts: the papers and download pages of the sets, and Karpathy and Fei-Fei, arXiv:1412.2306 (splits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from blip2_train.data.annotations.caption_layouts import DOMAINS
from blip2_train.data.annotations.captions import read_references
from blip2_train.data.annotations.questions import QuestionForm, read_questions
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.data.official.checks import paths_by_id
from blip2_train.data.official.inventory import Contents, OfficialFile
from blip2_train.errors import ShardError

_KARPATHY = "cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
_COCO_IMAGES = "coco/images"
_GENOME_IMAGES = ("visual_genome/VG_100K", "visual_genome/VG_100K_2")


def _karpathy(splits: str, paths: Sequence[Path]) -> Contents:
    images = read_references(paths[0], splits, form="karpathy")
    members = {part: [image.identity for image in images if image.split == part] for part in splits.split("+")}
    counts = {split: len(ids) for split, ids in members.items()}
    counts["captions"] = sum(len(image.captions) for image in images)
    return Contents(counts=counts, images=paths_by_id(images), splits=members)


def _caption_list(split: str, paths: Sequence[Path]) -> Contents:
    images = read_references(paths[0], split, form="list")
    captions = sum(len(image.captions) for image in images)
    return Contents(counts={"images": len(images), "captions": captions}, images=paths_by_id(images))


def _nocaps(paths: Sequence[Path]) -> Contents:
    images = read_references(paths[0], form="coco")
    counts = {domain: sum(image.domain == domain for image in images) for domain in DOMAINS}
    counts["captions"] = sum(len(image.captions) for image in images)
    return Contents(counts={"images": len(images), **counts}, images=paths_by_id(images))


def _nocaps_test(paths: Sequence[Path]) -> Contents:
    images = read_references(paths[0], form="coco")
    return Contents(counts={"images": len(images)}, images=paths_by_id(images))


def _regions(paths: Sequence[Path]) -> Contents:
    images = read_references(paths[0], form="regions")
    counts = {"images": len(images), "phrases": sum(len(image.captions) for image in images)}
    return Contents(counts=counts, images={image.path: image.path for image in images})


def _questions(form: QuestionForm, image: Callable[[VisualQuestion], str], paths: Sequence[Path]) -> Contents:
    questions = read_questions(*paths, form=form, strict=True)
    return Contents(counts={"questions": len(questions)}, images={one.image_id: image(one) for one in questions})


def _coco_name(part: str, question: VisualQuestion) -> str:
    if not isinstance(question.image_id, int):
        raise ShardError(f"question {question.question_id} is about image {question.image_id!r}, no number of COCO's")
    return f"{part}/COCO_{part}_{question.image_id:012d}.jpg"


def _coco_list(split: str, counts: Mapping[str, int]) -> OfficialFile:
    return OfficialFile(
        paths=(f"coco/coco_karpathy_{split}.json",),
        origin="the released code (salesforce/LAVIS), which reads this instead of dataset_coco.json",
        read=partial(_caption_list, split),
        counts=counts,
        folders=(_COCO_IMAGES,),
        optional=True,
        split_of=("coco/dataset_coco.json", "train+restval" if split == "train" else split),
    )


def _vqa(names: Iterable[str], origin: str, part: str, questions: int, apart_from: str = "") -> OfficialFile:
    return OfficialFile(
        paths=tuple(name.format(part) for name in names),
        origin=origin,
        read=partial(_questions, "vqa", partial(_coco_name, part)),
        counts={"questions": questions},
        folders=(_COCO_IMAGES,),
        apart_from=apart_from.format("train2014"),
    )


def _gqa(part: str, questions: int, apart_from: str = "") -> OfficialFile:
    return OfficialFile(
        paths=(f"gqa/{part}_balanced_questions.json",),
        origin="cs.stanford.edu/people/dorarad/gqa/download.html (questions1.2.zip, images.zip)",
        read=partial(_questions, "gqa", lambda question: question.image),
        counts={"questions": questions},
        folders=("gqa/images",),
        apart_from=apart_from,
    )


_VQA_V2 = ("vqa_v2/v2_OpenEnded_mscoco_{}_questions.json", "vqa_v2/v2_mscoco_{}_annotations.json")
_OKVQA = ("okvqa/OpenEnded_mscoco_{}_questions.json", "okvqa/mscoco_{}_annotations.json")
_VQA_ORIGIN, _OKVQA_ORIGIN = "visualqa.org/download.html", "okvqa.allenai.org/download.html"

SETS: dict[str, tuple[OfficialFile, ...]] = {
    "coco_karpathy": (
        OfficialFile(
            paths=("coco/dataset_coco.json",),
            origin=_KARPATHY + ", images from cocodataset.org (train2014.zip, val2014.zip)",
            read=partial(_karpathy, "train+restval+val+test"),
            counts={"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000, "captions": 616_767},
            folders=(_COCO_IMAGES,),
        ),
        _coco_list("train", {"images": 113_287, "captions": 566_747}),
        _coco_list("val", {"images": 5_000}),
        _coco_list("test", {"images": 5_000, "captions": 25_010}),
    ),
    "nocaps": (
        OfficialFile(
            paths=("nocaps/nocaps_val_4500_captions.json",),
            origin="nocaps.org/download, images from the URLs in the file",
            read=_nocaps,
            counts={"images": 4_500, "captions": 45_000}
            | dict(zip(DOMAINS, (417, 2_670, 1_413), strict=True)),  # as in the file; the site's table says otherwise
            folders=("nocaps/images",),
        ),
        OfficialFile(
            paths=("nocaps/nocaps_test_image_info.json",),
            origin="nocaps.org/download, images from the URLs in the file",
            read=_nocaps_test,
            counts={"images": 10_600},
            folders=("nocaps/images",),
            optional=True,
        ),
    ),
    "vqav2": (
        _vqa(_VQA_V2, _VQA_ORIGIN, "train2014", 443_757),
        _vqa(_VQA_V2, _VQA_ORIGIN, "val2014", 214_354, apart_from=_VQA_V2[0]),
    ),
    "visual_genome": (
        OfficialFile(
            paths=("visual_genome/question_answers.json",),
            origin="homes.cs.washington.edu/~ranjay/visualgenome (question answers, images part 1 and 2)",
            read=partial(_questions, "visual_genome", lambda question: f"{question.image_id}.jpg"),
            counts={},  # differ between its versions
            folders=_GENOME_IMAGES,
        ),
        OfficialFile(
            paths=("visual_genome/region_descriptions.json",),
            origin="homes.cs.washington.edu/~ranjay/visualgenome (region descriptions, images part 1 and 2)",
            read=_regions,
            counts={},
            folders=_GENOME_IMAGES,
            optional=True,
        ),
    ),
    "okvqa": (
        _vqa(_OKVQA, _OKVQA_ORIGIN, "train2014", 9_009),
        _vqa(_OKVQA, _OKVQA_ORIGIN, "val2014", 5_046, apart_from=_OKVQA[0]),
    ),
    "gqa": (_gqa("train", 943_000), _gqa("testdev", 12_578, apart_from="gqa/train_balanced_questions.json")),
    "flickr30k": (
        OfficialFile(
            paths=("flickr30k/dataset_flickr30k.json",),
            origin=_KARPATHY + ", images from shannon.cs.illinois.edu/DenotationGraph",
            read=partial(_karpathy, "train+val+test"),
            counts={"train": 29_000, "val": 1_014, "test": 1_000},
            folders=("flickr30k/images",),
        ),
    ),
}
"""Files by name of the set; those with which others are compared come first."""
