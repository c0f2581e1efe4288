"""Maps of the shipped organisms by the real scorer, and their planted truth."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from analyses.patching.run import run_patching
from analyses.patching.spec import PatchingSpec
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import load_prompt_set
from workbench.studies.study import Study, StudySpec


def impact_map(
    model: AceStep15, folder: Path, pairs: int, sets: tuple[tuple[int, ...], ...] = ()
) -> tuple[xr.Dataset, dict]:
    """The patching result on a few pairs, and the planted truth."""
    study_spec = StudySpec(
        model=model.name,
        prompts=load_prompt_set("organism"),
        settings=GenerationSettings(),
        n_prompts=2,
        seeds=1,
        sites=("tf0.cross_attn",),
        steps=(0,),
        passes=("cond",),
    )
    study = Study.create(folder, study_spec, model.describe(), str)
    truth = study.truth_card()
    assert truth is not None
    spec = PatchingSpec(pairs=pairs, sets=sets, nulls=("unrelated",))
    assert spec.result_name == "patching-blocks"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "decode", decoded_once(model.decode))
        run_patching(study, model, spec)
    return study.result(spec.result_name), truth["concepts"]


def decoded_once(decode: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Decode equal latents, such as those of arms at blocks that read nothing, only once: decoding takes longest."""

    @lru_cache(maxsize=64)
    def decoded(content: bytes, shape: tuple[int, ...], duration: float) -> torch.Tensor:
        return decode(torch.from_numpy(np.frombuffer(content, np.float32).reshape(shape).copy()), duration)

    return lambda latents, duration: decoded(latents.numpy().tobytes(), tuple(latents.shape), duration)


def single_blocks(result: xr.Dataset, suffix: str = "") -> list[str]:
    return [f"{block}{suffix}" for block in sorted(set(result.row.values)) if block and "+" not in block]


CONCEPTS = ["instrument", "tempo", "mood", "drums"]


def assert_nothing_outside(impact: xr.Dataset, planted: list[str]) -> None:
    """Check that blocks without a planted concept neither restore nor remove it; null arms hardly change it."""
    for suffix in ("", " necessity"):
        outside = [arm for arm in single_blocks(impact, suffix) if arm.removesuffix(suffix) not in planted]
        assert len(outside) == 8 - len(planted)
        assert (impact.impact_lo.sel(arm=outside) <= 0).all()
        assert (abs(impact.impact.sel(arm=outside)) < 0.05).all()
    nulls = impact.impact.sel(arm=single_blocks(impact, " null unrelated"))
    assert (abs(nulls) < 0.15).all()
    assert float(impact.impact.sel(arm=planted).max()) > float(impact.null_hi)
