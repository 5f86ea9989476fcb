"""Text that the figure's font can draw."""

from __future__ import annotations

from functools import lru_cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from vramtop.report.text import clean

FAMILY = "DejaVu Sans"
_MISSING = "\N{WHITE SQUARE}"


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    path = font_manager.findfont(FAMILY)
    return frozenset(FT2Font(path).get_charmap())


def drawable(text: str, limit: int = 200) -> str:
    """One line in which characters that the font lacks are a white square.

    Without this, matplotlib warns on stderr for each and draws a box anyway.

    >>> drawable("train 訓練.py")
    'train □□.py'
    """
    known = _characters()
    return "".join(char if ord(char) in known else _MISSING for char in clean(text, limit))
