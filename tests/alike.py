"""Whether two results are the same but for the last bits of their numbers.

A product's last bits depend on the shape of its batch, and on some processors on where in memory
its factors lie; texts and counts do not.
"""

from __future__ import annotations

import math
from typing import Any


def alike(one: Any, other: Any, within: float = 1e-4) -> bool:
    """Equal, with the floats in dicts, lists and tuples no further apart than `within`."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=within, abs_tol=within)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[k], other[k], within) for k in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(alike(a, b, within) for a, b in pairs)
    return bool(one == other)
