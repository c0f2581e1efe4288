"""Score the recordings of a run store: each file once, even if several runs share it."""

import logging
from collections.abc import Sequence

import numpy as np

from workbench.audio import unscorable
from workbench.engine.edits import Run
from workbench.scorers import Scorer, heard, score_key
from workbench.studies.recordings import read_recording
from workbench.studies.runs import Audio, RunRecord, RunStore

_log = logging.getLogger(__name__)


def judge(store: RunStore, runs: Sequence[Run], scorer: Scorer, texts: Sequence[str]) -> None:
    """Score the runs in the store for each text, unless this scorer has already scored them for it.

    Each recording is read once.

    Raises:
        UserError: if a recording is missing, damaged, or not the one generated for its run.
    """
    keys = {text: score_key(scorer.name, scorer.identity, text) for text in dict.fromkeys(texts)}
    records = [record for record in store.records(runs) if record is not None]
    unscored = {text for text, key in keys.items() for record in records if key not in record.scores}
    known = {text: store.scores_by_file(runs, keys[text]) for text in keys if text in unscored}
    new = {
        record.audio: record
        for record in records
        for text, scores in known.items()
        if keys[text] not in record.scores and record.audio not in scores
    }
    scored = _score_files(store, list(new.values()), scorer, list(known)) if new else {}
    for text, scores in known.items():
        store.add_scores(runs, keys[text], scored.get(text, {}) | scores)


def _score_files(
    store: RunStore, records: Sequence[RunRecord], scorer: Scorer, texts: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return the scores of recordings for each text by file; None if the audio or the text cannot be scored."""
    scores: dict[str, dict[str, float | None]] = {
        text: {record.audio: None for record in records} for text in texts
    }
    clips: dict[str, Audio] = {}
    rate = 0
    for record in records:
        if not record.audio:
            continue
        clip, rate = read_recording(store.root, record.audio, store.settings.duration)
        store.check(record)
        if fault := unscorable(clip):
            _log.error("%s cannot be scored: %s.", record.audio, fault)
        else:
            clips[record.audio] = clip
    if clips and (known := heard(scorer, texts)):
        values = scorer.score(np.stack(list(clips.values())), rate, known)
        for text, of_text in zip(known, values.T, strict=True):
            of_files = zip(clips, of_text, strict=True)
            scores[text] |= {file: float(value) if np.isfinite(value) else None for file, value in of_files}
    return scores
