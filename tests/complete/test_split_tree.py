"""Trees of splits: what covers a box is one whole tree, and nothing else is read as one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.complete.split_tree import LEAF, SplitTree, leaves
from acert_zoo.errors import CertificateFileError


def test_two_splits_by_hand() -> None:
    assert leaves([LEAF], 5) == [()]
    assert leaves([3, LEAF, LEAF], 5) == [((3, 1),), ((3, -1),)]
    assert leaves([3, LEAF, 4, LEAF, LEAF], 5) == [((3, 1),), ((3, -1), (4, 1)), ((3, -1), (4, -1))]


@pytest.mark.parametrize("written", [[], [3], [3, LEAF], [LEAF, LEAF], [3, LEAF, LEAF, LEAF], [5, LEAF, LEAF], [-2]])
def test_anything_but_one_whole_tree_is_refused(written: list[int]) -> None:
    with pytest.raises(CertificateFileError):
        leaves(written, 5)


def test_a_node_is_split_once() -> None:
    tree = SplitTree()
    tree.split(0, 2)
    with pytest.raises(ValueError, match="cannot be split"):
        tree.split(0, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=12))
def test_every_sign_pattern_lies_in_a_leaf(splits: list[tuple[int, int]]) -> None:
    """However a tree was grown, each of the 2^4 patterns of signs satisfies the constraints of some leaf."""
    tree, open_leaves = SplitTree(), [0]
    for choice, neuron in splits:
        leaf = open_leaves.pop(choice % len(open_leaves))
        open_leaves += tree.split(leaf, neuron)
    written, nodes = tree.preorder()
    paths = leaves(written, 4)
    assert sorted(nodes) == sorted(open_leaves)
    assert len(paths) == len(nodes)
    for pattern in itertools.product((1, -1), repeat=4):
        assert any(all(pattern[neuron] == sign for neuron, sign in path) for path in paths)
