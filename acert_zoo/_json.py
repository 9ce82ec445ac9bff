"""JSON from files that nobody vouches for: nesting is limited before it is parsed.

Python's own parser recurses once a level and relies on the interpreter's recursion limit, which other packages raise
(auto-LiRPA to a million): then a deeply nested file overflows the C stack and kills the process.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

MAX_DEPTH = 100
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # a string, or what an unclosed one leaves
_OTHERS = re.compile(r"[^\[\]{}]+")


def parse_json(text: str, **options: Any) -> Any:
    """`json.loads(text, **options)`.

    Raises:
        ValueError: not JSON, or lists and objects nested more than `MAX_DEPTH` deep.
    """
    brackets = _OTHERS.sub("", _STRINGS.sub("", text))
    if max(accumulate(1 if c in "[{" else -1 for c in brackets), default=0) > MAX_DEPTH:
        raise ValueError(f"JSON nested more than {MAX_DEPTH} deep")
    return json.loads(text, **options)


def canonical_json(content: bytes) -> bytes:
    r"""The same JSON with one layout (an indent of 1, `\n`, ASCII, keys in their order): digests are taken of this, so
    that line ends, a byte order mark and spaces do not matter.

    Raises:
        ValueError: not JSON in UTF-8, nested too deeply, a key twice, NaN or an infinity.
    """
    value = parse_json(content.decode("utf-8-sig"), object_pairs_hook=_distinct)
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice")
    return values
