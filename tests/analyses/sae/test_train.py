"""Training on rows whose sparse dictionary is known."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from analyses.sae.metrics import Reconstruction
from analyses.sae.scaling import Scale
from analyses.sae.spec import DEAD_AFTER
from analyses.sae.stream import Scaled
from analyses.sae.train import Trainer, TrainSpec, initial_sae, train_sae, train_spec
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.sae.base import SAE
from workbench.sae.topk import TopKObjective

CHANNELS, ATOMS, ACTIVE = 24, 48, 3
SPEC = train_spec(
    site="tf1.cross_attn", expansion=2, k=ACTIVE, train_steps=500, batch_size=512, learning_rate=0.01
)


class Shuffled:
    """Passes over rows, each in another order, in batches; the last one of a pass may be short."""

    def __init__(self, rows: np.ndarray, size: int) -> None:
        self.rows = torch.from_numpy(rows)
        self.size = size
        self.passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(len(self.rows))
        yield from self.rows[order].split(self.size)


def planted_rows() -> tuple[np.ndarray, np.ndarray]:
    """Unit atoms (atom, channel), and rows that are sums of three of them, scaled by 7 and moved by 3."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(ATOMS, CHANNELS))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    chosen = rng.permuted(np.tile(np.arange(ATOMS), (6000, 1)), axis=1)[:, :ACTIVE]
    weights = np.zeros((6000, ATOMS))
    np.put_along_axis(weights, chosen, rng.uniform(0.5, 2, size=chosen.shape), axis=1)
    return atoms, (7 * weights @ atoms + 3).astype(np.float32)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, SAE, object]:
    atoms, rows = planted_rows()
    sae, curves = train_sae(Shuffled(rows[:5000], 512), SPEC)
    return atoms, rows, sae, curves


def test_the_planted_dictionary_is_recovered(planted: tuple) -> None:
    atoms, _, sae, _ = planted
    cosine = (torch.from_numpy(atoms).float() @ sae.W_dec.T).max(dim=1).values
    assert (cosine > 0.9).float().mean() > 0.8


def test_rows_not_trained_on_are_reconstructed(planted: tuple) -> None:
    _, rows, sae, curves = planted
    x = torch.from_numpy(rows[5000:])
    metrics = Reconstruction(CHANNELS, sae.config.d_sae)
    with torch.no_grad():
        metrics.add(x, sae(x), sae.encode(x))
    assert metrics.explained_variance > 0.85
    assert metrics.explained_variance == pytest.approx(curves.explained_variance[-1].item(), abs=0.05)
    assert metrics.l0 == pytest.approx(ACTIVE, abs=0.01)
    assert metrics.dead_fraction < 0.1
    # The loss of the curves is in the scale of the training.
    assert metrics.squared_error * curves.attrs["input_scale"].item() ** 2 == pytest.approx(
        curves.loss[-1].item(), rel=0.3
    )


def test_curves(planted: tuple) -> None:
    curves = planted[3]
    measures = {"loss", "explained_variance", "l0", "dead_fraction"}
    assert set(curves.data_vars) == measures | {"mean_to_spread"}
    assert {curves[name].dims for name in measures} == {("train_step",)}
    assert curves.train_step[0] == 0
    assert curves.train_step[-1] == SPEC.train_steps - 1
    assert curves.loss[-1] < 0.3 * curves.loss[0]


def test_the_config_says_where_the_rows_come_from(planted: tuple) -> None:
    config = planted[2].config
    assert (config.d_in, config.d_sae, config.settings) == (CHANNELS, 2 * CHANNELS, {"k": ACTIVE})
    assert config.metadata == {"hook_name": "tf1.cross_attn", "pass_name": "cond"}


def test_decoder_rows_have_unit_norm(planted: tuple) -> None:
    torch.testing.assert_close(planted[2].W_dec.norm(dim=1), torch.ones(2 * CHANNELS))


def short(rows: np.ndarray, **changes: object) -> SAE:
    spec = SPEC.model_copy(update={"train_steps": 30, **changes})
    return train_sae(Shuffled(rows, spec.batch_size), spec)[0]


def test_equal_seeds_give_equal_weights() -> None:
    rows = planted_rows()[1]
    first, again, other = short(rows), short(rows), short(rows, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert not torch.equal(other.W_dec, first.W_dec)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 256}, {"learning_rate": 0.001}, {"objective": TopKObjective(k=2)}, {"train_steps": 20}],
    ids=str,
)
def test_fields_have_their_effect(change: dict[str, object]) -> None:
    rows = planted_rows()[1]
    assert not torch.equal(short(rows, **change).W_dec, short(rows).W_dec)


def test_scale_and_place_of_the_rows_do_not_matter() -> None:
    rows = planted_rows()[1]
    here, there = short(rows), short(rows * 64)
    torch.testing.assert_close(there.W_dec, here.W_dec, rtol=1e-3, atol=1e-4)
    x = torch.from_numpy(rows[:100])
    torch.testing.assert_close(there(x * 64) / 64, here(x), rtol=1e-2, atol=1e-2)


def scale_of(d_in: int) -> list[Scale]:
    return [Scale(torch.zeros(1, d_in), torch.ones(1, 1), (), np.zeros(1))]


@pytest.mark.parametrize(("architecture", "norm"), [("topk", 1.0), ("standard", 0.1), ("gated", 0.1)])
def test_training_starts_at_the_mean_with_a_tied_encoder(architecture: str, norm: float) -> None:
    sae = initial_sae(train_spec("s", architecture, expansion=4), 2, 2)
    assert not sae.b_dec.any(), "inputs are centred"
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.full((8,), norm))


def test_the_auxiliary_loss_revives_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_dead(spec: TrainSpec, d_in: int, d_out: int) -> SAE:
        sae = initial_sae(spec, d_in, d_out)
        with torch.no_grad():
            sae.b_enc[::2] = -3  # never positive at the start, so that the main loss has no gradient for them
        return sae

    monkeypatch.setattr("analyses.sae.train.initial_sae", half_dead)
    rows = Shuffled(planted_rows()[1], 256)
    specs = [
        SPEC.model_copy(
            update={
                "train_steps": 3 * DEAD_AFTER,
                "batch_size": 256,
                "objective": TopKObjective(k=ACTIVE, aux_coefficient=value),
            }
        )
        for value in (0.0, 1 / 32)
    ]
    without, with_revival = (train_sae(rows, spec)[1].dead_fraction[-1].item() for spec in specs)
    assert without > 0.4
    assert with_revival < 0.15


def test_the_decoder_sees_no_gradient_along_its_rows() -> None:
    rows = planted_rows()[1]
    trainer = Trainer(SPEC, scale_of(CHANNELS))
    sae, x = trainer.sae, torch.from_numpy(rows[:512])
    before = sae.W_dec.detach().clone()
    trainer.step(0, Scaled(x, x))
    assert sae.W_dec.grad is not None
    assert sae.W_dec.grad.norm() > 0.1
    torch.testing.assert_close((sae.W_dec.grad * before).sum(1), torch.zeros(len(before)), atol=1e-5, rtol=0)


def test_the_learning_rate_falls_at_the_end() -> None:
    rows = torch.from_numpy(planted_rows()[1])
    spec = SPEC.model_copy(update={"train_steps": 20})
    trainer = Trainer(spec, scale_of(CHANNELS))
    rates = []
    for step in range(20):
        trainer.step(step, Scaled(rows[:64], rows[:64]))
        rates.append(trainer.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([spec.learning_rate * factor for factor in [1] * 17 + [0.75, 0.5, 0.25]])


def test_passes_follow_each_other_without_their_short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = Trainer.step

    def spy(self: Trainer, number: int, rows: Scaled) -> None:
        sizes.append(len(rows.x))
        step(self, number, rows)

    monkeypatch.setattr(Trainer, "step", spy)
    rows = Shuffled(planted_rows()[1][:133], 64)  # batches of 64, 64 and 5
    train_sae(rows, SPEC.model_copy(update={"train_steps": 5}))
    assert sizes == [64] * 5
    assert rows.passes == 4  # the first is for the scale


def test_a_pass_of_one_short_batch_trains() -> None:
    sae, _ = train_sae(Shuffled(planted_rows()[1][:50], 512), SPEC.model_copy(update={"train_steps": 2}))
    assert sae.config.d_in == CHANNELS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_as_stored_are_trained_on_in_float32(dtype: torch.dtype) -> None:
    stored = torch.from_numpy(planted_rows()[1]).to(dtype).split(64)
    wide = [batch.float() for batch in stored]
    spec = SPEC.model_copy(update={"train_steps": 20})
    assert torch.equal(train_sae(stored, spec)[0].W_dec, train_sae(wide, spec)[0].W_dec)


def test_progress_is_told() -> None:
    calls: list[tuple[int, int]] = []
    spec = SPEC.model_copy(update={"train_steps": 2})
    train_sae(
        Shuffled(planted_rows()[1], 512), spec, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    "rows",
    [
        np.full((50, 4), 0.1, dtype=np.float32),
        np.full((50, 4), np.nan, dtype=np.float32),
        np.zeros((0, 4), np.float32),
    ],
    ids=["equal", "nan", "none"],
)
def test_rows_that_cannot_train(rows: np.ndarray) -> None:
    with pytest.raises(UserError, match="finite and not all equal"):
        train_sae(Shuffled(rows, 10), SPEC)


def test_a_step_is_adams_on_the_gradient_across_the_decoder_rows() -> None:
    rate, eps = SPEC.learning_rate, 1e-8
    unscaled = Scale(torch.zeros(1, CHANNELS), torch.ones(1, 1), (), np.ones(1))
    trainer = Trainer(SPEC, [unscaled])
    rows = torch.from_numpy(planted_rows()[1][:64]) / 7
    before = {name: value.clone() for name, value in trainer.sae.state_dict().items()}
    trainer.step(1, Scaled(rows, rows))
    sae, w_dec = trainer.sae, before["W_dec"]
    gradient = {name: value.grad for name, value in sae.named_parameters() if value.grad is not None}
    # The gradient is left without the part along the rows, and the first step is that of its sign.
    assert_close((gradient["W_dec"] * w_dec).sum(1), torch.zeros(len(w_dec)))
    moved = {name: before[name] - rate * slope / (slope.abs() + eps) for name, slope in gradient.items()}
    moved["W_dec"] /= moved["W_dec"].norm(dim=1, keepdim=True)
    for name, value in moved.items():
        assert_close(sae.state_dict()[name], value)
