"""How many clips fit into memory: by the same measure, as many as the budget holds and no more."""

import pytest
import torch

from workbench.engine.settings import GenerationSettings
from workbench.models import memory
from workbench.models.ace_step import AceStep15
from workbench.models.ace_step_v1.adapter import AceStepV1
from workbench.models.memory import USABLE_FRACTION, _LiveBytes, _peak_bytes, clips_that_fit

SETTINGS = GenerationSettings(duration=2.0, num_steps=1)


@pytest.fixture(scope="module")
def peak(tiny: AceStep15) -> int:
    """Of one clip."""
    return _peak_bytes(tiny, 1, SETTINGS)


@pytest.mark.parametrize("clips", [1.0, 2.5, 7.0, 12.0])
def test_a_batch_of_as_many_clips_stays_within_the_budget(tiny: AceStep15, peak: int, clips: float) -> None:
    budget = int(clips * peak)
    fit = clips_that_fit(tiny, SETTINGS, budget)
    assert _peak_bytes(tiny, fit, SETTINGS) <= budget
    assert _peak_bytes(tiny, fit + 1, SETTINGS) > budget, "one more would not fit"


def test_more_memory_fits_more_clips_and_one_always_fits(tiny: AceStep15, peak: int) -> None:
    fit = [clips_that_fit(tiny, SETTINGS, budget) for budget in (0, 1, 2 * peak, 4 * peak, 40 * peak)]
    assert fit[:2] == [1, 1]
    assert fit == sorted(fit)
    assert fit[2] < fit[3] < fit[4]


def test_longer_clips_and_guidance_cost_more(tiny: AceStep15, peak: int) -> None:
    longer, unguided = (
        clips_that_fit(tiny, SETTINGS.model_copy(update=change), 20 * peak)
        for change in ({"duration": 8.0}, {"guidance_scale": 1.0})
    )
    assert longer < clips_that_fit(tiny, SETTINGS, 20 * peak) < unguided


def test_guidance_counts_where_it_begins_late(tiny_v1: AceStepV1) -> None:
    """The first steps of a run, which have one pass, do not tell what the others take."""
    always, late = (
        SETTINGS.model_copy(update={"options": {"guidance_interval": interval}}) for interval in (1.0, 0.5)
    )
    budget = 20 * _peak_bytes(tiny_v1, 1, always)
    assert clips_that_fit(tiny_v1, late, budget) == clips_that_fit(tiny_v1, always, budget)


def test_steps_cost_nothing(tiny: AceStep15, peak: int) -> None:
    many = SETTINGS.model_copy(update={"num_steps": 50})
    assert clips_that_fit(tiny, many, 20 * peak) == clips_that_fit(tiny, SETTINGS, 20 * peak)


def test_without_a_budget_it_is_a_share_of_what_is_free(tiny: AceStep15, peak: int, monkeypatch) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 30 * peak if device == "cpu" else 0)
    assert clips_that_fit(tiny, SETTINGS) == clips_that_fit(tiny, SETTINGS, int(USABLE_FRACTION * 30 * peak))


def test_measuring_leaves_no_hooks_even_when_it_fails(
    tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hooks() -> tuple[int, int]:
        return len(tiny.denoiser._forward_pre_hooks), len(tiny.denoiser._forward_hooks)

    def fail(*args: object, **kwargs: object) -> None:
        assert hooks() != before
        raise RuntimeError("no")

    before = hooks()
    clips_that_fit(tiny, SETTINGS, 10**6)
    assert hooks() == before
    monkeypatch.setattr(tiny, "generate_batch", fail)
    with pytest.raises(RuntimeError):
        clips_that_fit(tiny, SETTINGS, 10**6)
    assert hooks() == before


def test_bytes_are_counted_once_and_given_back() -> None:
    kilobyte = 256  # float32
    with _LiveBytes() as live:
        torch.zeros(kilobyte)
        assert live.peak == 0, "nothing is counted before it begins"
        live.restart()
        kept = torch.zeros(kilobyte)
        assert (live.held, live.peak) == (1024, 1024)
        view = kept.view(2, -1)[0]
        assert live.held == 1024
        passing = kept + 1
        assert live.held == 2048
        del passing
        assert (live.held, live.peak) == (1024, 2048)
        del kept
        assert live.held == 1024, "the view still holds it"
        del view
        assert live.held == 0
        live.stop()
        torch.zeros(kilobyte * 9)
    assert live.peak == 2048
