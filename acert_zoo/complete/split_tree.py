"""Trees of ReLU splits: why the cases that were proved one by one are all the cases there are.

An inner node splits one neuron z: its first child adds z >= 0, its second z <= 0. Every point of the box satisfies at
least one of the two, so, by induction from the root (no constraint, the whole box), the leaves of a *whole* tree cover
the box. Whole means: every inner node has both children. A tree is written as its nodes in preorder, the number of the
split neuron for an inner node and LEAF for a leaf; `leaves` accepts nothing but one whole tree, and derives from it the
constraints of every leaf, so that what is proved leaf by leaf is what covers the box.

Neurons are numbered through all ReLUs of the network: those of the first ReLU step in order of its flattened input,
then those of the second, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

from acert_zoo.errors import CertificateFileError

LEAF = -1
Path = tuple[tuple[int, int], ...]  # (neuron, 1 for z >= 0 or -1 for z <= 0) from the root down


class SplitTree:
    """A tree that grows: leaves are numbered as they arise, the root is leaf 0."""

    def __init__(self) -> None:
        self._neuron: list[int] = [LEAF]
        self._children: list[tuple[int, int]] = [(0, 0)]

    def split(self, leaf: int, neuron: int) -> tuple[int, int]:
        """Makes a leaf an inner node; returns its children, z >= 0 first."""
        if self._neuron[leaf] != LEAF or neuron < 0:
            raise ValueError(f"node {leaf} cannot be split by neuron {neuron}")
        first = len(self._neuron)
        self._neuron[leaf] = neuron
        self._children[leaf] = (first, first + 1)
        self._neuron += [LEAF, LEAF]
        self._children += [(0, 0), (0, 0)]
        return first, first + 1

    def preorder(self) -> tuple[list[int], list[int]]:
        """(the tree as it is written, its leaves in the same order)."""
        written, leaves, stack = [], [], [0]
        while stack:
            node = stack.pop()
            written.append(self._neuron[node])
            if self._neuron[node] == LEAF:
                leaves.append(node)
            else:
                stack += reversed(self._children[node])
        return written, leaves


def leaves(written: Sequence[int], neurons: int) -> list[Path]:
    """The constraints of every leaf of a written tree; together they cover the box.

    Raises:
        CertificateFileError: not one whole tree, or it splits what is no neuron (0 to `neurons` - 1).
    """
    found: list[Path] = []
    stack: list[Path] = [()]
    for number in written:
        if not stack:
            raise CertificateFileError("the tree of splits goes on after its last leaf")
        path = stack.pop()
        if number == LEAF:
            found.append(path)
        elif 0 <= number < neurons:
            stack += [(*path, (number, -1)), (*path, (number, 1))]
        else:
            raise CertificateFileError(f"the tree splits neuron {number}; the network has 0 to {neurons - 1}")
    if stack:
        raise CertificateFileError(f"the tree of splits is not whole: {len(stack)} cases are missing")
    return found
