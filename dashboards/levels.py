"""The loudness of a study's recordings, each measured once per version of its file."""

from functools import lru_cache

from dashboards.results import Identity
from workbench.files import file_version
from workbench.listening.loudness import loudness
from workbench.studies.study import Study


def recording_level(study: Study, name: str) -> float:
    """The integrated loudness (LUFS, ITU-R BS.1770) of a recording, by its path relative to the study.

    Raises:
        UserError: the file is damaged, or the recording is silent or shorter than 0.4 s.
    """
    return _measured(study, name, file_version(study.path / name))


@lru_cache(maxsize=4096)
def _measured(study: Study, name: str, version: Identity) -> float:
    del version  # only part of the cache key: a changed file is measured again
    audio, sample_rate = study.read_audio(name)
    return loudness(audio, sample_rate, name)
