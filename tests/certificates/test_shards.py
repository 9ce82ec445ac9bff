"""Shards: whole batches, every image once, and the bits of one run over all."""

from __future__ import annotations

import pytest
import torch

from acert_zoo import certify
from acert_zoo.certificates.shards import Shard
from acert_zoo.errors import InvalidInputError
from acert_zoo.zoo.model import AcertModel


def test_ten_images_in_batches_of_three_make_two_shards_of_two_batches() -> None:
    assert Shard(1, 2).rows(10, 3) == slice(0, 6)
    assert Shard(2, 2).rows(10, 3) == slice(6, 10)


@pytest.mark.parametrize(("n", "batch", "count"), [(1, 5, 1), (10, 3, 4), (1000, 7, 13), (256 * 9, 256, 9)])
def test_every_image_is_in_one_shard_and_every_shard_begins_a_batch(n: int, batch: int, count: int) -> None:
    rows = [Shard(k, count).rows(n, batch) for k in range(1, count + 1)]
    assert [i for row in rows for i in range(row.start, row.stop)] == list(range(n))
    assert all(row.start % batch == 0 for row in rows)
    sizes = [-(-(row.stop - row.start) // batch) for row in rows]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "1.0/4", " 1/4", "٣/٤"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected K/N with 1 <= K <= N"):
        Shard.parse(text)


def test_more_shards_than_batches_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"shard 1/4: 9 images in batches of 3 make at most 3 shards"):
        Shard.parse("1/4").rows(9, 3)


def test_shards_have_the_bits_of_one_run_and_other_cuts_need_not(model: AcertModel) -> None:
    """Of a batch of more than 16, the first eight images teach the search where the others begin."""
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    whole = certify(model, images, batch_size=20)
    rows = [Shard(k, 2).rows(60, 20) for k in (1, 2)]
    parts = [certify(model, images[row], batch_size=20) for row in rows]
    for field in ("radius", "margin", "prediction"):
        joined = torch.cat([getattr(part, field) for part in parts])
        assert torch.equal(joined, getattr(whole, field))
    shifted = certify(model, images[10:], batch_size=20)
    assert not torch.equal(shifted.radius, whole.radius[10:])
