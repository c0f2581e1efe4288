"""Train sparse autoencoders of any architecture on rows of activations."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import InstanceOf, SerializeAsAny
from torch import Tensor

from analyses.sae.distributed import ALONE, Ranks, average, sharing, total
from analyses.sae.metrics import explained_variance
from analyses.sae.scaling import Scale, folded
from analyses.sae.spec import DEAD_AFTER, TrainSettings
from analyses.sae.stream import ResumableRows, Rows, Scaled, Stream
from cache.errors import UserError
from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.base import SAE, Objective, TrainingBatch, TrainingStep
from workbench.validation import check_names, validated

# The training curves, and their number of points.
CURVES = ("loss", "explained_variance", "l0", "dead_fraction")
CURVE_POINTS = 50
# The learning rate falls linearly to zero over this last fraction of the training.
DECAY_FRACTION = 0.2
# Prefixes of the names in a training's state.
_WEIGHTS, _OPTIMISER = "weights.", "optimiser."
# Adam's state of a parameter: the number of steps, a scalar, and the moments, which have its shape.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


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
    own = [name for name in kind.model_fields if name not in ("architecture", "d_out")]
    check_names(
        options, (TrainSpec, kind), what, f" The options of '{architecture}' alone are {', '.join(own)}."
    )
    of_training = {name: options.pop(name) for name in TrainSpec.model_fields if name in options}
    objective = validated(kind, options, what)
    return validated(TrainSpec, {"site": site, "objective": objective, **of_training}, what)


def train_sae(
    rows: Rows | ResumableRows,
    spec: TrainSpec,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    steps: tuple[int, ...] = (),
    target: Rows | ResumableRows | None = None,
) -> tuple[SAE, xr.Dataset]:
    """Train an SAE and return it, on the CPU, with its training curves.

    The inputs are centred and scaled (`analyses.sae.scaling`); at the end the scale is folded into the weights, so that
    the SAE takes unscaled activations. The decoder is initialised to random rows of one norm, the encoder to its
    transpose, the biases to 0, which after folding is the mean. The same rows, spec and device give the same weights.

    Args:
        rows: the training rows in batches (row, channel), iterated over once per pass; `cache.shuffle.ShuffledRows`
            has a new order in each. A short last batch of a pass is skipped.
        spec: settings and objective.
        device: torch device.
        progress: called as `progress(done, total)` with numbers of training steps.
        steps: the steps of the rows' positions, for inputs scaled per step.
        target: rows that a transcoder reconstructs, in the same order.

    Returns:
        The SAE, and curves with dim `train_step`: `loss` (mean squared error of the scaled training batch, without the
        objective's other terms), `explained_variance`, `l0` (of the batch) and `dead_fraction` (features not active in
        the last `DEAD_AFTER` steps). `mean_to_spread`, dim `scaled`, is the norm of the inputs' mean relative to their
        spread, of all rows or at each step; large ratios foretell dead features (arXiv 2605.31518). The attribute
        `input_scale` (step or 1, channel or 1) is the factor of the targets, of anything but a transcoder the inputs.

    Raises:
        UserError: if there are no rows, all rows are equal, k is larger than the number of features, or weights become
            infinite.
    """
    with closing(Stream(rows, spec.input_scale, steps, target, device)) as stream:
        trainer = Trainer(spec, stream.scales, device)
        for step in range(spec.train_steps):
            if progress:
                progress(step, spec.train_steps)
            trainer.step(step, stream.next())
    if progress:
        progress(spec.train_steps, spec.train_steps)
    return trainer.finish()


class Trainer:
    """State of one SAE's training: its weights, the optimiser, the steps since each feature was active, the curves."""

    def __init__(
        self, spec: TrainSpec, scales: Sequence[Scale], device: str = "cpu", ranks: Ranks = ALONE
    ) -> None:
        self.spec = spec
        self.sae = initial_sae(spec, scales[0].mean.shape[1], scales[-1].mean.shape[1]).to(device)
        self.optimiser = torch.optim.Adam(self.sae.parameters(), lr=spec.learning_rate, fused=True)
        self.silent_steps = torch.zeros(self.sae.config.d_sae, dtype=torch.int64, device=device)
        self.points: list[tuple[float, ...]] = []
        self._scales = [scale.to("cpu") for scale in scales]
        self._ranks = ranks

    def step(self, step: int, rows: Scaled) -> None:
        """Take an optimiser step on a scaled batch."""
        objective, total_steps = self.spec.objective, self.spec.train_steps
        dead = self.silent_steps >= DEAD_AFTER
        batch = TrainingBatch(rows.x, rows.target, dead, step / total_steps, sharing(self._ranks))
        with torch.autocast(rows.x.device.type, torch.bfloat16, enabled=self.spec.precision == "bfloat16"):
            done = objective.step(self.sae, batch)
        for group in self.optimiser.param_groups:
            group["lr"] = self.spec.learning_rate * _decay(step, total_steps)
        self.optimiser.zero_grad()
        torch.stack([term.float() for term in done.terms.values()]).sum().backward()
        average(self.sae, self._ranks)
        objective.constrain_gradient(self.sae)
        self.optimiser.step()
        objective.constrain(self.sae)
        self.silent_steps = torch.where(total(done.fired, self._ranks) > 0, 0, self.silent_steps + 1)
        if step % max(1, total_steps // CURVE_POINTS) == 0 or step == total_steps - 1:
            self._record(step, rows.target, done)

    def finish(self) -> tuple[SAE, xr.Dataset]:
        """Return the SAE for unscaled inputs, on the CPU, and the training curves."""
        sae = self.sae.cpu()
        if not all(bool(torch.isfinite(value).all()) for value in sae.state_dict().values()):
            raise UserError(
                "The autoencoder's weights became NaN or infinite in training. Either the activations have such "
                "numbers (run `workbench cache verify`), or the learning rate is too large."
            )
        sae = folded(self.spec.objective.trained(sae), self._scales)
        return sae, self._curves()

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that the next steps depend on, as arrays by name."""
        weights = {f"{_WEIGHTS}{name}": value for name, value in self.sae.state_dict().items()}
        moments = {
            f"{_OPTIMISER}{name}.{key}": value
            for name, parameter in self.sae.named_parameters()
            for key, value in self.optimiser.state[parameter].items()
        }
        tensors = {**weights, **moments, "silent_steps": self.silent_steps}
        return {
            **{name: value.detach().cpu().numpy() for name, value in tensors.items()},
            "points": np.array(self.points, dtype=np.float64),
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`.

        Raises:
            KeyError, ValueError: if it is of another training.
        """
        # Copied into own memory: products may depend on where in memory a matrix begins.
        weights = {
            name.removeprefix(_WEIGHTS): torch.from_numpy(value)
            for name, value in state.items()
            if name.startswith(_WEIGHTS)
        }
        if {name: value.shape for name, value in weights.items()} != {
            name: value.shape for name, value in self.sae.state_dict().items()
        }:
            raise ValueError("the weights have other shapes")
        if state["silent_steps"].shape != (self.sae.config.d_sae,) or state["points"].shape[1:] != (
            1 + len(CURVES),
        ):
            raise ValueError("the counts or the curves have other shapes")
        self.sae.load_state_dict(weights)
        for name, parameter in self.sae.named_parameters():
            if parameter.requires_grad:  # not a threshold that is measured
                self.optimiser.state[parameter] = {
                    key: _like(parameter, torch.from_numpy(state[f"{_OPTIMISER}{name}.{key}"]))
                    for key in _MOMENTS
                }
        self.silent_steps = torch.from_numpy(state["silent_steps"].copy()).to(self.silent_steps)
        self.points = [tuple(point) for point in state["points"].tolist()]

    def _curves(self) -> xr.Dataset:
        step, *values = np.array(self.points).T
        scale = self._scales[0]
        return xr.Dataset(
            {
                **{name: ("train_step", value) for name, value in zip(CURVES, values, strict=True)},
                "mean_to_spread": ("scaled", scale.ratio),
            },
            {"train_step": step.astype(int), "scaled": list(scale.steps or (-1,))},
            {"input_scale": self._scales[-1].factor.double().numpy()},
        )

    def _record(self, step: int, target: Float[Tensor, "row channel"], done: TrainingStep) -> None:
        explained = explained_variance(target, done.x_hat.detach())
        l0 = done.fired.sum().item() / len(target)
        dead_fraction = (self.silent_steps >= DEAD_AFTER).double().mean().item()
        self.points.append((step, done.terms["error"].item(), explained, l0, dead_fraction))


def initial_sae(spec: TrainSpec, d_in: int, d_out: int) -> SAE:
    """Return the untrained SAE: random decoder rows of the objective's initial norm, the encoder their transpose."""
    origin = {"hook_name": spec.site, "pass_name": spec.pass_name}
    objective = spec.objective
    if spec.target_site:
        origin["hook_name_out"] = spec.target_site
        objective = objective.model_copy(update={"d_out": d_out})
    sae = objective.new_sae(d_in, spec.expansion * d_in, origin)
    generator = torch.Generator().manual_seed(spec.seed)
    directions = torch.randn(sae.W_dec.shape, generator=generator)
    with torch.no_grad():
        sae.W_dec.copy_(objective.initial_norm * directions / directions.norm(dim=1, keepdim=True))
        # A transcoder's features have no known direction in its input.
        sae.W_enc.copy_(
            sae.W_dec.T if d_in == d_out else torch.randn(sae.W_enc.shape, generator=generator) / d_in**0.5
        )
    return sae


def _decay(step: int, total_steps: int) -> float:
    """Return the fraction of the learning rate at a step."""
    return min(1.0, (total_steps - step) / max(1, round(DECAY_FRACTION * total_steps)))


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a copy of a moment on the parameter's device; the number of steps, a scalar, stays on the CPU.

    Raises:
        ValueError: if it has another shape than the parameter.
    """
    if value.ndim and value.shape != parameter.shape:
        raise ValueError("a moment has another shape than its weights")
    return value.to(parameter.device, copy=True) if value.ndim else value.clone()
