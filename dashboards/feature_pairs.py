"""The features of two autoencoders in pairs, matched in the background once for each version of their results."""

import threading
from functools import lru_cache
from pathlib import Path

from analyses.sae.pairs import By, Pairs, feature_pairs
from dashboards.results import Identity, result_identity
from workbench.studies.study import Study

_one_at_a_time = threading.Lock()
_starting = threading.Lock()


class _Matching:
    """Features that are being matched, in a thread of their own, or have been."""

    def __init__(self, study_path: Path, name: str, other: str, by: By | None) -> None:
        self.done = 0.0
        """The fraction of the work that is done."""
        self._found: Pairs | Exception | None = None
        self._thread = threading.Thread(target=self._match, args=(study_path, name, other, by), daemon=True)
        self._thread.start()

    def result(self, seconds: float) -> Pairs | None:
        """Return the pairs, or None if they are not found within some seconds; raise what went wrong."""
        self._thread.join(seconds)
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def _match(self, study_path: Path, name: str, other: str, by: By | None) -> None:
        try:
            with _one_at_a_time:
                found = feature_pairs(Study.open(study_path), name, other, by, self._note)
            order = "cosine" if found.by == "decoder" else "correlation"
            frame = found.frame.sort_values(order, ascending=False, kind="stable", ignore_index=True)
            self._found = found._replace(frame=frame)
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self._found = error

    def _note(self, done: float) -> None:
        self.done = done


def matched_pairs(study: Study, name: str, other: str, by: By | None, seconds: float) -> Pairs | float:
    """The pairs of `analyses.sae.pairs.feature_pairs`, most alike first.

    If they are not found within some seconds, the fraction of the work that is done; the work goes on, and who asks
    again gets the pairs.

    Raises:
        UserError: as there.
    """
    versions = (result_identity(study, f"sae-{name}"), result_identity(study, f"sae-{other}"))
    with _starting:  # two who ask at once wait for the same
        matching = _matching(study.path, name, other, versions, by)
    try:
        found = matching.result(seconds)
    except Exception:
        _matching.cache_clear()  # what was wrong may have been mended when somebody asks again
        raise
    return matching.done if found is None else found


@lru_cache(maxsize=8)
def _matching(
    study_path: Path, name: str, other: str, versions: tuple[Identity, Identity], by: By | None
) -> _Matching:
    del versions  # only part of the cache key: changed results are read again
    return _Matching(study_path, name, other, by)
