"""A study for the lab alone: it has a model, prompts and settings, and records no activations."""

from pathlib import Path
from typing import Any

from cache.errors import UserError
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.defaults import PROMPT_SET
from workbench.prompts.prompt_sets import asked_prompt_set
from workbench.prompts.reading import encoder
from workbench.studies.planning import plan_study
from workbench.studies.study import DOCUMENT, Study

N_PROMPTS = 16


def has_study(folder: Path) -> bool:
    """Whether a folder has a study."""
    return (folder / DOCUMENT).is_file()


def lab_study(
    model: AudioDiffusionModel, out: Path, prompts: str = PROMPT_SET, settings: dict[str, Any] | None = None
) -> Study:
    """Open the study in a folder, or create one whose clips are suggestions and are not generated.

    Raises:
        UserError: if the study is of another model, the folder has other files, or the prompts or settings are invalid.
    """
    if has_study(out):
        study = Study.open(out)
        if study.spec.model != model.name:
            raise UserError(
                f"The study in {out} is of {study.spec.model}, not of {model.name}. Give another folder, or that model."
            )
        study.check_model(model.weights_hash)
        return study
    prompt_set = asked_prompt_set(prompts)
    n_prompts = min(N_PROMPTS, prompt_set.n_prompts)
    spec = plan_study(model, prompt_set, settings=settings or {}, n_prompts=n_prompts, seeds=1)
    return Study.create(out, spec, model.describe(), encoder(model, spec.lyrics, spec.settings))
