"""Listening studies from and for webMUSHRA, as folders: configuration, audio and results together."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cache.errors import UserError
from workbench.files import file_name, replacing
from workbench.listening.answers import Answers, read_any_answers, study_id
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


def export_study(
    folder: Path, out: Path, excluded: Callable[[Answers], Mapping[int, str]], note: Callable[[str], None]
) -> list[Path]:
    """Write a study as webMUSHRA's configuration, audio and, if there are answers, result file; return the files.

    Args:
        folder: the listening study.
        out: the folder to write to.
        excluded: returns for listeners why they are excluded, or "", which the result file says.
        note: called with a sentence if webMUSHRA asks listeners something else.

    Raises:
        UserError: if the folder is no listening study, webMUSHRA cannot run it, or a stimulus is missing.
    """
    config = read_config(folder)
    name = file_name(folder.resolve().name)
    written = {out / CONFIGS / f"{name}.yaml": write_webmushra(config, name)}
    if (folder / ANSWERS).exists():
        store = AnswerStore(folder, study_id(config))
        results = results_csv(config, store, name, excluded(read_any_answers(folder)))
        written[out / "results" / name / FILES[config.design]] = results
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
    if config.design == "pairs":
        note(
            "webMUSHRA plays the first clip of a pair as the reference and asks which of two clips is the same, not "
            "which is better: collect preferences with `workbench listen serve`."
        )
    return [_write(file, text.encode()) for file, text in written.items()]


def _write(file: Path, content: bytes) -> Path:
    with replacing(file) as partial:
        partial.write_bytes(content)
    return file
