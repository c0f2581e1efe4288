"""Score the recordings of a run store: each file once, even if several runs share it."""

import logging
from collections.abc import Sequence

import numpy as np

from workbench.audio import unscorable
from workbench.engine.edits import Run
from workbench.scorers import Scorer, score_key
from workbench.studies.recordings import read_recording
from workbench.studies.runs import Audio, RunRecord, RunStore

_log = logging.getLogger(__name__)


def judge(store: RunStore, runs: Sequence[Run], scorer: Scorer, text: str) -> None:
    """Score the runs in the store for a text, unless this scorer has already scored them for it.

    Raises:
        UserError: if a recording is missing, damaged, or not the one generated for its run.
    """
    key = score_key(scorer.name, scorer.identity, text)
    unscored = [record for record in store.records(runs) if record is not None and key not in record.scores]
    if not unscored:
        return
    known = store.scores_by_file(runs, key)
    new = {record.audio: record for record in unscored if record.audio not in known}
    store.add_scores(runs, key, known | _score_files(store, list(new.values()), scorer, text))


def _score_files(
    store: RunStore, records: Sequence[RunRecord], scorer: Scorer, text: str
) -> dict[str, float | None]:
    """Return the scores of recordings by file; None if the audio cannot be scored."""
    scores: dict[str, float | None] = {record.audio: None for record in records}
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
    if clips:
        values = scorer.score(np.stack(list(clips.values())), rate, [text])[:, 0]
        for file, value in zip(clips, values, strict=True):
            scores[file] = float(value) if np.isfinite(value) else None
    return scores
