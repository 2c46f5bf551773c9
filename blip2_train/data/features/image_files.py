"""Images of an evaluation as samples without captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip2_train.data.printable_names import names_digest, printable_name
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.types import RejectedSample


class ImageFiles:
    """Files of images.

    Args:
        paths: The files, each once.
        name: Name of the set.
    """

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self._paths, self.name = list(paths), name
        self.rejected: tuple[RejectedSample, ...] = ()
        self.size, self.files = 0, len(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def sample_location(self, index: int) -> SampleLocation:
        """The location of file `index`."""
        path = self._paths[index]
        return SampleLocation(printable_name(str(path.parent)), self.name, printable_name(path.name))

    def read(self, index: int) -> Record:
        """File `index`; raises `UnusableSample` if it cannot be read."""
        try:
            return Record(image=self._paths[index].read_bytes(), captions=("",), image_id=index)
        except OSError as error:
            raise UnusableSample("missing image", f"{self._paths[index]}: {error.strerror or error}") from None

    def fingerprint(self) -> str:
        """Hash of the paths."""
        return names_digest(map(str, self._paths))
