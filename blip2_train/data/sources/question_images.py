"""The images of questions: in folders by file name, or in shards by image id."""

from __future__ import annotations

from collections.abc import Sequence

from blip2_train.data.annotations.visual_questions import VisualQuestion, named_image
from blip2_train.data.batches.images import ImageFile
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.image_folders import ImageFolders
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.errors import ShardError


class FolderImages:
    """Images as files.

    Args:
        folders: a folder, or a glob of several that are searched in turn (Visual Genome's `VG_100K*`).
        name: file name, with `{image_id}` (or `{image_id:012d}`) in it; empty = the path in the question file.

    Raises:
        ShardError: if there is no such folder.
    """

    def __init__(self, folders: str, name: str) -> None:
        self._folders, self._name = ImageFolders(folders), name

    def check(self, questions: Sequence[VisualQuestion], path: str) -> None:
        """Refuse questions whose images have no name.

        Raises:
            ShardError: naming the question file.
        """
        if self._name:
            named_image(self._name, questions[0].image_id)
        elif not questions[0].image:
            raise ShardError(
                f"{path} does not name its images: give picture_name, for instance 'COCO_val2014_{{image_id:012d}}.jpg'"
            )

    def read(self, question: VisualQuestion) -> ImageFile:
        """File of a question's image.

        Raises:
            UnusableSample: if it is missing.
        """
        path = named_image(self._name, question.image_id) if self._name else question.image
        return ImageFile(self._folders.read(path))


class ShardImages:
    """Images in tar shards, each with its `"image_id"` in its `.json`.

    Args:
        path: folder, glob or file.
        name: name of the source in messages.

    Raises:
        ShardError: if there is no shard, or no sample with an image id in them.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path, self._source = path, ShardSource(path, name)
        self._indices = self._source.indices_by_image_id()
        if not self._indices:
            raise ShardError(
                f'no sample of shards {path} has an "image_id" in its .json, so no question finds its image'
            )

    def check(self, questions: Sequence[VisualQuestion], path: str) -> None:
        """Refuse questions of which none is about an image of these shards.

        Raises:
            ShardError: naming both.
        """
        if not any(question.image_id in self._indices for question in questions):
            raise ShardError(f"no question of {path} is about an image of shards {self._path}; is it another split?")

    def read(self, question: VisualQuestion) -> ImageFile:
        """File of a question's image.

        Raises:
            UnusableSample: if it is missing.
        """
        index = self._indices.get(question.image_id)  # type: ignore[arg-type]
        if index is None:
            raise UnusableSample("missing image", f"no sample with image_id {question.image_id} in {self._path}")
        record = self._source.read(index)
        return ImageFile(record.image, record.orientation)
