"""Evaluate an SAE of a study: its metrics at each step, what the model loses with it, and the steps to close."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.evaluation.identity import settled
from analyses.evaluation.scores_kept import scores_kept
from analyses.evaluation.spec import EvaluationSpec
from analyses.execution import Executor
from analyses.sae.generated import reader_at
from analyses.sae.loss_recovered import CONFIDENCE, PASS, loss_recovered
from analyses.sae.names import PREFIX, load_sae, sae_folder
from analyses.sae.quality import MEASURES, gate
from analyses.sae.replacements import replacements, written_site
from analyses.sae.stability import stability
from analyses.statistics import too_few_pairs
from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.models.base import AudioDiffusionModel
from workbench.sae.base import SAE
from workbench.sae.folder import save_config
from workbench.sae.gate import Gate, set_gate
from workbench.sae.identity import weights_hash
from workbench.scorers import load_scorer
from workbench.studies.study import Study
from workbench.validation import validated

_log = logging.getLogger(__name__)

KIND = "sae-evaluation"
SCHEMA_VERSION = 1
OF_SAE = ("gated", *(f"{of}_{name}" for of in ("final", "step") for name in MEASURES))
"""The variables of the SAE's own result that its evaluation repeats."""

Progress = Callable[[int, int], None]


def asked_evaluation(study: Study, name: str, **options: Any) -> EvaluationSpec:
    """Make the spec of an evaluation; `options` are fields of `EvaluationSpec`.

    Raises:
        UserError: if an option is unknown or not allowed, the study lacks an autoencoder, or one is compared with
            itself, under the same name or another.
    """
    spec = validated(EvaluationSpec, {"name": name, **options}, "The autoencoder cannot be evaluated")
    sae = load_sae(study, spec.name)
    for each in spec.against:
        if torch.equal(sae.W_dec, load_sae(study, each).W_dec):
            raise UserError(
                f"'{each}' has the decoder of '{spec.name}', so that all features would match. Compare with another "
                "autoencoder, such as one of another seed, or leave out --against."
            )
    return spec


def evaluate_sae(
    study: Study,
    model: AudioDiffusionModel,
    spec: EvaluationSpec,
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Evaluate an SAE of a study, save and return the result "evaluation-NAME", and set the SAE's gate.

    The loss recovered is measured on clips that the SAE was not trained on (see `analyses.sae.loss_recovered`), the
    concept scores kept on new clips (see `analyses.evaluation.scores_kept`); schema: `docs/reference/results.md`. The
    study's cache need not have the site: its mean is then that of the same clips, which the model generates again.

    Args:
        study: the study, whose prompt set, settings and run store are used.
        model: the study's model.
        spec: which SAE, and what it is evaluated on.
        progress: called as `progress(done, total)` with numbers of clips, and then of pairs times seeds.
        note: called with each sentence on the limitations of the result, before anything runs.
        executor: runs the units of work, by default in this process.

    Raises:
        UserError: if there is no such SAE, it is not one of the cond pass, a scorer is unknown, or another process
            computes the same result.
    """
    started = time.monotonic()
    study.check_model(model.weights_hash)
    sae, trained = load_sae(study, spec.name), study.result(PREFIX + spec.name)
    others = {name: load_sae(study, name) for name in spec.against}
    site = _checked_site(trained, spec.name)
    scorers = {name: load_scorer(name, device=model.device) for name in spec.scorers}
    spec = settled(spec, weights_hash(sae), scorers, SCHEMA_VERSION)
    with study.making(spec.result_name):
        if (earlier := study.done_result(spec.result_name, spec)) is not None:
            _keep_gate(study, spec.name, sae, earlier)  # the SAE may have been trained again since
            return earlier
        sentences = [
            too_few_pairs(spec.pairs) if spec.pairs else "",
            study.replaced(spec.result_name, spec),
        ]
        for sentence in filter(None, sentences):
            note(sentence)
        held_out = [int(clip) for clip in np.atleast_1d(trained.attrs["held_out_clips"])]
        steps = trained["step"].values.tolist()
        written = written_site(sae, site)
        read = reader_at(study, model, written, PASS, note)
        means = step_means(read(written, PASS, held_out), steps)
        rows = study.clips.set_index("clip").loc[held_out[: spec.clips]]
        clips = [Clip(str(row.prompt), int(row.seed), str(row.lyrics)) for row in rows.itertuples()]
        sae.to(model.device)
        result = loss_recovered(
            model, sae, written, clips, rows["encoding"].tolist(), study.spec.settings, means, progress
        )
        counts = {"held_out": result.attrs["clips"], "held_out_prompts": result.attrs["prompts"]}
        own = trained[[name for name in OF_SAE if name in trained]].drop_vars("gated")
        result = result.merge(own, compat="override")
        closed = {step for step, _, _ in _gate(result).closed}
        result["gated"] = ("step", [step in closed for step in steps])
        if spec.pairs:
            edits = replacements(sae, written, PASS, means)
            kept = scores_kept(
                study, model, edits, scorers, spec.pairs, spec.seeds, spec.seed, progress, executor, note
            )
            result = result.merge(kept)
        if others:
            result = result.merge(stability(sae.cpu(), others))
        result.attrs = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "sae": spec.name,
            "site": site,
            "confidence": CONFIDENCE,
            **counts,
        }
        _keep_gate(study, spec.name, sae, result)
        return study.save_result(spec.result_name, result, spec, time.monotonic() - started)


def _gate(result: xr.Dataset) -> Gate:
    return gate(result, result["loss_recovered"].sel(ablation="mean").values.tolist())


def _keep_gate(study: Study, name: str, sae: SAE, result: xr.Dataset) -> None:
    """Keep the gate of an evaluation with the SAE."""
    set_gate(sae, _gate(result))
    save_config(sae, sae_folder(study, name), study.path)


def _checked_site(trained: xr.Dataset, name: str) -> str:
    """Return the SAE's site; raise UserError for an SAE of another pass, or one whose result is too old."""
    if trained.attrs["pass"] != PASS:
        raise UserError(
            f"The autoencoder '{name}' must be one of the {PASS} pass, whose velocity is compared; it is one of the "
            f"{trained.attrs['pass']} pass."
        )
    if missing := [measure for measure in OF_SAE if measure not in trained]:
        raise UserError(f"The result of the autoencoder '{name}' has no {missing[0]}. Train it again.")
    return str(trained.attrs["site"])


def step_means(
    clip_acts: Iterable[Float[np.ndarray, "step token channel"]], steps: Sequence[int]
) -> dict[int, Float[torch.Tensor, " channel"]]:
    """Return the mean over clips and tokens at each step: what the mean predictor of the explained variance gives."""
    means = np.mean([acts.mean(axis=1, dtype=np.float64) for acts in clip_acts], axis=0)
    return {step: torch.from_numpy(mean).float() for step, mean in zip(steps, means, strict=True)}
