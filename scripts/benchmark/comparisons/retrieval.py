"""Retrieval at the size of COCO's test set: re-ranking beside the released code's plan, shortlists beside full sorting.

Shape letters: M images, N texts, B images of a block, P patches, Dv tower width, K length of a list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from plain_passes import PlainPasses, layer_norm
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.comparisons.comparison import Comparison
from benchmark.workload import leave_tower_out
from blip2_train.config.compose import compose, instantiate
from blip2_train.evaluation.embedding import PAIRS_AT_ONCE, length_batches
from blip2_train.evaluation.shortlist import NearestLists, Shortlists, join
from blip2_train.models.image_text import ImageTextModel

TEXTS, IMAGES, K = 25_010, 5_000, 128
"""COCO, Karpathy's test split; the list of the paper."""
LONGEST = 35
"""Tokens that the released code pads every text to."""
PART, BLOCK, RELEASED_BLOCK = 640, 320, 16
"""Images that are sorted here, those of a block of this project's (a whole run's are larger: 1,342), and of the plain
one's."""


def compare() -> list[Comparison]:
    """FLOPs of a re-ranked pair, counted; time of the shortlists, measured."""
    return [compare_reranking(), compare_shortlists()]


def compare_reranking() -> Comparison:
    """All pairs of one image: its own list, and the texts on whose lists an image is on average."""
    pairs = K + TEXTS * K // IMAGES
    drawn = 12 + 2.5 * torch.randn(pairs, generator=torch.Generator().manual_seed(0))
    lengths = drawn.round().clamp(4, LONGEST).long()
    groups = [(len(rows), longest) for rows, longest in length_batches(lengths, PAIRS_AT_ONCE)]
    with torch.device("meta"):
        config = compose(["experiment=stage1_vit_g"])
        empty: ImageTextModel = instantiate(config.model)
        patches = len(empty.vision_model.tower.pos_embed[0])
        leave_tower_out(empty)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = empty.to_empty(device="cpu").eval()
        features = torch.empty(1, patches, model.vision_model.width)
        ours = flops(lambda: rerank(model, features, groups)) / pairs
        other = flops(lambda: rerank_as_released(model, features, K)) / K
    return Comparison(
        name="retrieval_flops_vs_released",
        what=f"re-ranking a pair, {patches} patches, texts of N(12, 2.5) tokens",
        ours=f"{ours / 1e9:.2f} GFLOP",
        other=f"{other / 1e9:.2f} GFLOP, {LONGEST} tokens, keys and values of each pair",
        ratio=ours / other,
        target=0.45,
    )


def rerank(model: ImageTextModel, features: Tensor, groups: Sequence[tuple[int, int]]) -> None:
    """As `RetrievalTask` does it for an image `(1, P, Dv)` and groups of texts; their padding counts as computed."""
    image_kv = model.project_image(features)
    for count, longest in groups:
        ids = torch.zeros(count, longest, dtype=torch.int64)
        model.match([image_kv.repeat(count)], ids, ids == 0)


def rerank_as_released(model: ImageTextModel, features: Tensor, pairs: int) -> None:
    """As `compute_sim_matrix` of the released code does it: the image's features repeated for each text."""
    passes = PlainPasses(model, fused=False)
    images = layer_norm(model.ln_vision, features).repeat(pairs, 1, 1)
    queries = model.query_tokens.shape[1]
    ids = torch.zeros(pairs, LONGEST, dtype=torch.int64)
    visible = torch.ones(pairs, queries + LONGEST, queries + LONGEST, dtype=torch.bool)
    states, _ = passes.run(passes.queries_and(ids), queries, visible, images)
    model.itm_head(states[:, :queries]).mean(dim=1)


def compare_shortlists() -> Comparison:
    """Lists of 640 of the 5,000 images, and of all texts among them, twice in turn."""
    similarity = torch.rand(PART, TEXTS, generator=torch.Generator().manual_seed(0))
    fast, slow = [], []
    for _ in range(2):
        lists, seconds = timed(lambda: by_topk(similarity))
        fast.append(seconds)
        sorted_lists, seconds = timed(lambda: by_sorting(similarity))
        slow.append(seconds)
    for ours, others in zip(lists, sorted_lists, strict=True):
        assert torch.equal(ours.indices, others.indices) and torch.equal(ours.values, others.values)
    return Comparison(
        name="shortlist_speed",
        what=f"lists of {K} for {PART} images and {TEXTS:,} texts",
        ours=f"{median(fast):.2f} CPU s",
        other=f"{median(slow):.2f} CPU s, blocks of {RELEASED_BLOCK} images sorted whole; the same lists",
        ratio=median(slow) / median(fast),
        target=10.0,
        bound="at least",
    )


def by_topk(similarity: Tensor) -> tuple[NearestLists, NearestLists]:
    """This project's lists of `(M, N)` similarities."""
    lists = Shortlists(K)
    for rows in torch.arange(len(similarity)).split(BLOCK):
        lists.add(rows, similarity[rows])
    return join([lists])


def by_sorting(similarity: Tensor) -> tuple[NearestLists, NearestLists]:
    """The same lists by a stable sort of every row, block by block."""
    of_images, of_texts = [], None
    for rows in torch.arange(len(similarity)).split(RELEASED_BLOCK):
        block = similarity[rows]
        order = block.sort(dim=1, descending=True, stable=True).indices[:, :K]
        of_images.append(NearestLists(order, block.gather(1, order)))
        images, values = rows.expand(similarity.shape[1], -1), block.T
        if of_texts is not None:
            images, values = torch.cat([of_texts.indices, images], dim=1), torch.cat([of_texts.values, values], dim=1)
            ascending = images.argsort(dim=1)
            images, values = images.gather(1, ascending), values.gather(1, ascending)
        order = values.sort(dim=1, descending=True, stable=True).indices[:, :K]
        of_texts = NearestLists(images.gather(1, order), values.gather(1, order))
    assert of_texts is not None
    return NearestLists.stacked(of_images), of_texts


def timed(make: Callable[[], tuple[NearestLists, NearestLists]]) -> tuple[tuple[NearestLists, NearestLists], float]:
    """What it gives, and the processor time it takes, seconds."""
    start = time.process_time()
    return make(), time.process_time() - start


def flops(compute: Callable[[], None]) -> int:
    """Matrix products of a computation, a multiply-add as 2."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())
