"""Fonts for names in any script: installed fonts are used for letters missing from the figures' own font."""

import re
from collections.abc import Iterable
from functools import lru_cache

from matplotlib import font_manager

FAMILY = "DejaVu Sans"
# matplotlib's warning about a letter that no font has, given by its code point.
_LACKS = re.compile(r"Glyph (\d+) .*missing from")
SHOWN = 8
BOXES = "Last Resort"  # matplotlib's font that has a box for every letter


def families(text: str) -> list[str]:
    """The figures' own font, plus installed ones that cover as many of the other letters of `text` as possible."""
    lacking = set(filter(str.isprintable, text)) - _letters_of(FAMILY)
    if not lacking:
        return [FAMILY]
    _find_new_fonts()
    return [FAMILY, *_stand_ins(frozenset(lacking), len(font_manager.fontManager.ttflist))]


def missing_letters(warnings: Iterable[str]) -> list[str]:
    """The letters that matplotlib could not draw, according to its warnings, in order."""
    found = filter(None, map(_LACKS.match, warnings))
    return list(dict.fromkeys(chr(int(match[1])) for match in found))


def missing_sentence(letters: list[str]) -> str:
    """A sentence on letters that no installed font has, and what to do."""
    shown = ", ".join(letters[:SHOWN]) + (f" and {len(letters) - SHOWN} more" if len(letters) > SHOWN else "")
    return (
        f"No installed font has {shown}, so the figure shows boxes instead: install one that does, such as Noto Sans "
        "CJK for Chinese, Japanese and Korean, and export again, or export SVG, which keeps text as text."
    )


@lru_cache(maxsize=32)
def _stand_ins(lacking: frozenset[str], n_fonts: int) -> tuple[str, ...]:
    del n_fonts  # only part of the cache key: newly installed fonts may be better
    upright = {
        font.name
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and not font.name.startswith(BOXES)
    }
    have = {name: lacking & _letters_of(name) for name in sorted(upright)}
    chosen: list[str] = []
    while lacking:
        best = max(have, key=lambda name: len(have[name] & lacking))
        if not have[best] & lacking:
            break
        chosen.append(best)
        lacking -= have[best]
    return tuple(chosen)


def _letters_of(family: str) -> set[str]:
    path = font_manager.findfont(font_manager.FontProperties(family=[family]))
    return set(map(chr, font_manager.get_font(path).get_charmap()))


def _find_new_fonts() -> None:
    """Add fonts installed since matplotlib made its list of fonts."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                font_manager.fontManager.addfont(path)
            except (NotImplementedError, OSError, RuntimeError):  # not scalable, or damaged
                continue
