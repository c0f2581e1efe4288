"""Fonts for names in any script: those that are installed stand in for letters that the figures' own font lacks."""

import re
from collections.abc import Iterable
from functools import lru_cache

from matplotlib import font_manager

FAMILY = "DejaVu Sans"
# What matplotlib says of a letter that no font has, by its number.
_LACKS = re.compile(r"Glyph (\d+) .*missing from")
SHOWN = 8
BOXES = "Last Resort"  # matplotlib's font that has a box for every letter


def families(text: str) -> list[str]:
    """The figures' own font, and installed ones that together have as many of the other letters of `text` as any."""
    lacking = set(filter(str.isprintable, text)) - _letters_of(FAMILY)
    if not lacking:
        return [FAMILY]
    _find_new_fonts()
    return [FAMILY, *_stand_ins(frozenset(lacking), len(font_manager.fontManager.ttflist))]


def missing_letters(warnings: Iterable[str]) -> list[str]:
    """The letters that matplotlib's warnings say it could not draw, in their order."""
    found = filter(None, map(_LACKS.match, warnings))
    return list(dict.fromkeys(chr(int(match[1])) for match in found))


def missing_sentence(letters: list[str]) -> str:
    """What to do about letters that no installed font has."""
    shown = ", ".join(letters[:SHOWN]) + (f" and {len(letters) - SHOWN} more" if len(letters) > SHOWN else "")
    return (
        f"No font of this machine has {shown}, which the figure shows as boxes: install one that has, such as "
        "Noto Sans CJK for Chinese, Japanese and Korean, and export again, or take SVG, whose text stays text."
    )


@lru_cache(maxsize=32)
def _stand_ins(lacking: frozenset[str], n_fonts: int) -> tuple[str, ...]:
    del n_fonts  # part of the key only: with more fonts there may be better ones
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
    """Let matplotlib, which keeps a list of fonts, know those that were installed since."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                font_manager.fontManager.addfont(path)
            except (NotImplementedError, OSError, RuntimeError):  # one that cannot be scaled, or is damaged
                continue
