"""Train sparse autoencoders of any architecture on rows of activations."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import InstanceOf, SerializeAsAny
from torch import Tensor
from transformers.optimization import get_wsd_schedule

from analyses.sae.metrics import explained_variance
from analyses.sae.spec import TrainSettings
from cache.errors import UserError
from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.base import SAE, Objective, TrainingBatch, TrainingStep
from workbench.validation import check_names, validated

# Mean and scale of the inputs are measured on at most this many rows.
MEASURED_ROWS = 65_536
# A feature that has not been positive on any row for this many training steps is dead.
DEAD_AFTER = 100
# The training curves, and their number of points.
CURVES = ("loss", "explained_variance", "l0", "dead_fraction")
CURVE_POINTS = 50
# The learning rate falls linearly to zero over this last fraction of the training.
DECAY_FRACTION = 0.2
# Variance below this fraction of the mean square is rounding.
ROUNDING = 1e-12

Rows = Iterable[Float[Tensor, "_row channel"]]  # batches may differ in length


class TrainSpec(TrainSettings):
    """Training settings and objective; the objective determines the SAE's architecture."""

    objective: SerializeAsAny[InstanceOf[Objective]]


def train_spec(site: str, architecture: str = "topk", **options: Any) -> TrainSpec:
    """Return the spec of a training run; `options` are fields of `TrainSpec` and of the architecture's objective.

    Raises:
        UserError: if there is no such architecture or option, or a value is not allowed.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"Unknown autoencoder architecture '{architecture}'. Use one of {', '.join(ARCHITECTURES)}."
        )
    what = "The autoencoder cannot be trained"
    kind = ARCHITECTURES[architecture].objective
    check_names(options, (TrainSpec, kind), what)
    of_training = {name: options.pop(name) for name in TrainSpec.model_fields if name in options}
    objective = validated(kind, options, what)
    return validated(TrainSpec, {"site": site, "objective": objective, **of_training}, what)


class Scale(NamedTuple):
    """Mean and scale of the inputs."""

    mean: Float[Tensor, " channel"]
    factor: float  # multiplies the inputs, so that their mean variance over channels is 1


def train_sae(
    rows: Rows,
    spec: TrainSpec,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SAE, xr.Dataset]:
    """Train an SAE and return it, on the CPU, with its training curves.

    The inputs are scaled by one number to unit mean variance; at the end the scale is folded into the biases, so that
    the SAE takes unscaled activations. `b_dec` is initialised to the mean, the decoder to random unit-norm rows, and
    the encoder to the decoder's transpose. Decoder rows are kept at unit norm, and their gradients orthogonal to them.
    The same rows, spec and device give the same weights.

    Args:
        rows: the training rows in batches (row, channel), iterated over once per pass; `cache.shuffle.ShuffledRows`
            has a new order in each. A short last batch of a pass is skipped.
        spec: settings and objective.
        device: torch device.
        progress: called as `progress(done, total)` with numbers of training steps.

    Returns:
        The SAE, and curves with dim `train_step`: `loss` (mean squared error of the scaled training batch, without the
        objective's other terms), `explained_variance`, `l0` (of the batch) and `dead_fraction` (features not active in
        the last `DEAD_AFTER` steps). Their attribute `input_scale` is the scale.

    Raises:
        UserError: if there are no rows, all rows are equal, or k is larger than the number of features.
    """
    scale = measure_scale(rows)
    sae = initial_sae(scale, spec).to(device)
    trainer = Trainer(sae, spec)
    batches = _full_batches(rows)
    for step in range(spec.train_steps):
        if progress:
            progress(step, spec.train_steps)
        trainer.step(step, next(batches).to(device).float() * scale.factor)
    if progress:
        progress(spec.train_steps, spec.train_steps)
    if not all(bool(torch.isfinite(value).all()) for value in sae.state_dict().values()):
        raise UserError(
            "The autoencoder's weights became NaN or infinite in training. Either the activations have such numbers "
            "(run `workbench cache verify`), or the learning rate is too large."
        )
    sae.unscale(scale.factor)
    return spec.objective.trained(sae).cpu(), trainer.curves().assign_attrs(input_scale=scale.factor)


def measure_scale(rows: Rows) -> Scale:
    """Measure the mean per channel, and the factor that gives unit mean variance, on up to `MEASURED_ROWS` rows.

    Raises:
        UserError: if the rows are not finite, or all equal.
    """
    count, total, square = 0, np.zeros(1), 0.0
    for batch in rows:
        values = batch.cpu().double().numpy()
        count, total, square = count + len(values), total + values.sum(0), square + float((values**2).sum())
        if count >= MEASURED_ROWS:
            break
    mean = total / max(count, 1)
    mean_square = square / max(count, 1) / len(mean)
    variance = mean_square - float((mean**2).mean())
    if not variance > ROUNDING * mean_square:
        raise UserError(
            f"Activations must be finite and not all equal to train a sparse autoencoder; these {count} rows are not."
        )
    return Scale(torch.from_numpy(mean).float(), variance**-0.5)


def initial_sae(scale: Scale, spec: TrainSpec) -> SAE:
    """Return the untrained SAE: random unit-norm decoder rows, the encoder their transpose, `b_dec` the mean."""
    d_in = len(scale.mean)
    origin = {"hook_name": spec.site, "pass_name": spec.pass_name}
    sae = spec.objective.new_sae(d_in, spec.expansion * d_in, origin)
    generator = torch.Generator().manual_seed(spec.seed)
    directions = torch.randn(sae.W_dec.shape, generator=generator)
    with torch.no_grad():
        sae.W_dec.copy_(directions / directions.norm(dim=1, keepdim=True))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_dec.copy_(scale.mean * scale.factor)
    return sae


class Trainer:
    """State of training: the optimiser, the steps since each feature was last active, the curves."""

    def __init__(self, sae: SAE, spec: TrainSpec) -> None:
        self.sae = sae
        self.spec = spec
        self.optimiser = torch.optim.Adam(sae.parameters(), lr=spec.learning_rate)
        self.schedule = get_wsd_schedule(
            self.optimiser,
            num_warmup_steps=0,
            num_decay_steps=round(DECAY_FRACTION * spec.train_steps),
            num_training_steps=spec.train_steps,
            decay_type="linear",
        )
        self.silent_steps = torch.zeros_like(sae.b_enc, dtype=torch.int64)
        self.points: list[tuple[int, float, float, float, float]] = []

    def step(self, step: int, x: Float[Tensor, "row channel"]) -> None:
        """Take an optimiser step on a scaled batch."""
        objective = self.spec.objective
        dead = self.silent_steps >= DEAD_AFTER
        done = objective.step(self.sae, TrainingBatch(x, x, dead, step / self.spec.train_steps))
        self.optimiser.zero_grad()
        torch.stack(list(done.terms.values())).sum().backward()
        objective.constrain_gradient(self.sae)
        self.optimiser.step()
        self.schedule.step()
        objective.constrain(self.sae)
        self.silent_steps = torch.where(done.fired > 0, 0, self.silent_steps + 1)
        if step % self._interval == 0 or step == self.spec.train_steps - 1:
            self._record(step, x, done)

    def curves(self) -> xr.Dataset:
        """Return the training curves, dim `train_step`."""
        step, *values = (np.array(column) for column in zip(*self.points, strict=True))
        return xr.Dataset(
            {name: ("train_step", value) for name, value in zip(CURVES, values, strict=True)},
            {"train_step": step},
        )

    @property
    def _interval(self) -> int:
        return max(1, self.spec.train_steps // CURVE_POINTS)

    def _record(self, step: int, x: Float[Tensor, "row channel"], done: TrainingStep) -> None:
        explained = explained_variance(x, done.x_hat.detach())
        l0 = done.fired.sum().item() / len(x)
        dead_fraction = (self.silent_steps >= DEAD_AFTER).double().mean().item()
        self.points.append((step, done.terms["error"].item(), explained, l0, dead_fraction))


def _full_batches(rows: Rows) -> Iterator[Float[Tensor, "row channel"]]:
    """Iterate over passes endlessly, skipping short batches: a step on the last few rows of a pass is mostly noise."""
    size = 0
    while True:
        for batch in rows:
            if len(batch) >= size:
                size = len(batch)
                yield batch
