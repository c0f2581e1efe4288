"""The clips of a patching cell's pair: clean, corrupt and patched."""

import pandas as pd

from dashboards.components.ab import Media, Side, ab_sides, served
from dashboards.differences import marked
from dashboards.numbers import fixed
from workbench.scorers.descriptors import DESCRIPTORS, unit_of
from workbench.studies.study import Study

SIDES = ("clean", "corrupt", "patched")
PROMPTS = {"clean": "corrupt", "corrupt": "clean"}
"""Whose prompts are compared."""


def cell_sides(study: Study, row: pd.Series, cell: pd.Series, media: Media = served) -> str:
    """What an A/B player plays of a cell (a row of `cells_frame`) for one of its pairs (a row of `pairs_frame`)."""
    base = "clean" if cell["direction"] == "necessity" else "corrupt"
    prompts = {side: marked(row[f"{side}_prompt"], row[f"{rest}_prompt"]) for side, rest in PROMPTS.items()}
    same = row["patched_audio"] == row[f"{base}_audio"]
    notes = {**prompts, "patched": (f"Identical to the {base} run.",) if same else prompts[base]}
    sides = [
        Side(
            name=side,
            detail="no score" if pd.isna(row[side]) else fixed(row[side], 3),
            note=notes[side],
            path=row[f"{side}_audio"],
        )
        for side in SIDES
    ]
    caption = (
        f"Pair {row['pair']}, noise of seed {row['noise_seed']}. The number is {_number(row, cell['scorer'])}. The "
        f"patched run is the {base} run with the patch, from the same initial noise."
    )
    return ab_sides(study, sides, study.spec.settings.duration, caption, media=media)


def _number(row: pd.Series, scorer: str) -> str:
    """What the number beside a clip says."""
    if scorer not in DESCRIPTORS:
        return f"the score: how well the clip matches “{row['text']}”"
    unit = unit_of(scorer)
    return f"the clip's {scorer}" + (f" in {unit}" if unit else "")
