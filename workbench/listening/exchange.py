"""Listening studies from and for webMUSHRA, as folders: configuration, audio and results together."""

import shutil
from collections.abc import Callable
from pathlib import Path

from cache.errors import UserError
from workbench.files import file_name, replacing
from workbench.listening.answers import study_id
from workbench.listening.folder import ANSWERS, read_config, read_stimulus
from workbench.listening.making import make_listening_study
from workbench.listening.store import AnswerStore
from workbench.listening.webmushra import imported_material, read_webmushra, write_webmushra
from workbench.listening.webmushra_results import FILES, import_results, results_csv

CONFIGS = "configs"


def import_study(
    configuration: Path, out: Path, audio: Path | None, answers: Path | None, note: Callable[[str], None]
) -> int:
    """Make a listening study from a configuration of webMUSHRA; return the number of listeners in `answers`.

    Its audio files are relative to the folder `audio`, by default the one in which the folder `configs` is, or that of
    the configuration.

    Raises:
        UserError: if a file is missing, or does not fit.
    """
    imported = read_webmushra(configuration)
    folder = configuration.parent
    root = audio or (folder.parent if folder.name == CONFIGS else folder)
    config = make_listening_study(out, *imported_material(configuration, root, imported), note)
    if answers is None:
        return 0
    try:
        return import_results(answers, imported, config, AnswerStore(out, study_id(config)))
    except UserError:
        shutil.rmtree(out)
        raise


def export_study(folder: Path, out: Path) -> list[Path]:
    """Write a study as webMUSHRA's configuration, audio and, if there are answers, result file; return the files.

    Raises:
        UserError: if the folder is no listening study, or a stimulus is missing.
    """
    config = read_config(folder)
    name = file_name(folder.resolve().name)
    used = {
        token
        for trial in config.trials
        if trial.kind == "trial"
        for token in (*trial.stimuli, trial.reference)
    }
    for stimulus in config.stimuli:
        if stimulus.token in used:
            try:
                content = read_stimulus(folder, stimulus)
            except FileNotFoundError as error:
                raise UserError(f"{error.filename} is missing. Restore {folder} from a copy.") from error
            _write(out / CONFIGS / "resources" / name / f"{stimulus.token}.wav", content)
    files = [_write(out / CONFIGS / f"{name}.yaml", write_webmushra(config, name).encode())]
    if (folder / ANSWERS).exists():
        results = results_csv(config, AnswerStore(folder, study_id(config)), name)
        files.append(_write(out / "results" / name / FILES[config.design], results.encode()))
    return files


def _write(file: Path, content: bytes) -> Path:
    with replacing(file) as partial:
        partial.write_bytes(content)
    return file
