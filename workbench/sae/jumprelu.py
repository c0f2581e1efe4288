"""JumpReLU: features above their thresholds are active (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.sae.base import SAE, Objective, SAEConfig, TrainingBatch, TrainingStep
from workbench.sae.settings import JumpReLUSettings
from workbench.sae.warm_up import warmed_up


class JumpReLUConfig(SAEConfig):
    """Sizes of a JumpReLU SAE."""

    architecture: Literal["jumprelu"] = "jumprelu"


class JumpReLUSAE(SAE):
    """SAE with `activate(pre) = relu(pre)` where `pre > threshold` (feature), 0 elsewhere.

    The threshold has no gradient here: `LogThresholdSAE` learns it, and BatchTopK measures it.
    """

    SELECTS: ClassVar[bool] = True
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("threshold",)

    threshold: nn.Parameter

    def __init__(self, config: SAEConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, weights)
        self.threshold.requires_grad_(False)

    @classmethod
    def shapes(cls, config: SAEConfig) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter."""
        return {**super().shapes(config), "threshold": (config.d_sae,)}

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Keep the positive pre-activations above the thresholds; set all others to 0."""
        return torch.relu(pre) * (pre > self.threshold)

    @torch.no_grad()
    def unscale(self, factor: float) -> None:
        """Divide biases and thresholds by the factor of the inputs."""
        super().unscale(factor)
        self.threshold.div_(factor)

    @torch.no_grad()
    def scale_features(self, factor: Float[Tensor, " feature"]) -> None:
        """Multiply features and thresholds, and divide decoder rows."""
        super().scale_features(factor)
        self.threshold.mul_(factor)


class LogThresholdSAE(SAE):
    """A JumpReLU SAE in training: its parameter is the logarithm of the threshold, which keeps it positive."""

    log_threshold: nn.Parameter

    @classmethod
    def shapes(cls, config: SAEConfig) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter."""
        return {**super().shapes(config), "log_threshold": (config.d_sae,)}

    @property
    def threshold(self) -> Float[Tensor, " feature"]:
        """Threshold of each feature."""
        return self.log_threshold.exp()

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Keep the pre-activations above the thresholds; set all others to 0."""
        return torch.relu(pre) * (pre > self.threshold)

    @torch.no_grad()
    def unscale(self, factor: float) -> None:
        """Divide biases and thresholds by the factor of the inputs."""
        super().unscale(factor)
        self.log_threshold.sub_(math.log(factor))


class JumpReLUObjective(JumpReLUSettings, Objective):
    """Squared error, the weighted sparsity term, and the pre-activation loss of dead features.

    The sparsity terms are per channel, as the squared error is: means over rows of the sum over features, divided by
    the number of channels. So a coefficient weighs as much as in SAELens, where neither is divided.
    """

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> LogThresholdSAE:
        """Return an SAE with the initial threshold and all weights zero."""
        sae = LogThresholdSAE(JumpReLUConfig(d_in=d_in, d_sae=d_sae, metadata=dict(metadata)))
        nn.init.constant_(sae.log_threshold, math.log(self.threshold))
        return sae

    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        """Return the mean squared error, the sparsity, and while any feature is dead the pre-activation loss."""
        assert isinstance(sae, LogThresholdSAE)
        threshold = sae.threshold
        pre = sae.pre_activations(batch.x)
        acts = jump_relu(pre, threshold, self.bandwidth)
        x_hat = sae.decode(acts)
        if self.sparsity == "l0":
            active = step_above(pre, threshold, self.bandwidth).sum(-1)
        else:
            active = torch.tanh(self.tanh_scale * acts).sum(-1)
        weight = warmed_up(self.l0_coefficient, self.warm_up, batch.progress)
        terms = {
            "error": (x_hat - batch.target).square().mean(),
            "sparsity": weight * active.mean() / sae.config.d_out,
        }
        if self.pre_activation_coefficient and batch.dead.any():
            lift = pre_activation_loss(pre, threshold, batch.dead) / sae.config.d_out
            terms["pre_activation"] = self.pre_activation_coefficient * lift
        return TrainingStep(terms, x_hat, (acts > 0).sum(0))

    def trained(self, sae: SAE) -> SAE:
        """Return the SAE with the learned thresholds."""
        weights = dict(sae.state_dict())
        weights["threshold"] = weights.pop("log_threshold").exp()
        return JumpReLUSAE(sae.config, weights)


def pre_activation_loss(
    pre: Float[Tensor, "row feature"], threshold: Float[Tensor, " feature"], dead: Bool[Tensor, " feature"]
) -> Float[Tensor, ""]:
    """Return how far dead features are below their thresholds: mean over rows of the sum over dead features.

    Anthropic's loss (Circuits Update, January 2025) for dead features only, as in SAELens.
    """
    return torch.relu(threshold - pre)[:, dead].sum(-1).mean()


def jump_relu(
    pre: Float[Tensor, "row feature"], threshold: Float[Tensor, " feature"], bandwidth: float
) -> Float[Tensor, "row feature"]:
    """Return `pre` where it is above the positive threshold, else 0, with a pseudo-derivative for the threshold.

    With K(u) = 1 for |u| < 1/2, else 0, and bandwidth ε, it is -(θ / ε) K((pre - θ) / ε) (equation 11).
    """
    value: Tensor = _JumpReLU.apply(pre, threshold, bandwidth)
    return value


def step_above(
    pre: Float[Tensor, "row feature"], threshold: Float[Tensor, " feature"], bandwidth: float
) -> Float[Tensor, "row feature"]:
    """Return 1 where `pre` is above the threshold, else 0, with a pseudo-derivative for the threshold only.

    It is -(1 / ε) K((pre - θ) / ε) (equation 12), in the terms of `jump_relu`.
    """
    value: Tensor = _Step.apply(pre, threshold, bandwidth)
    return value


def _window(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Return K((pre - threshold) / bandwidth) / bandwidth."""
    return (((pre - threshold) / bandwidth).abs() < 0.5).to(threshold.dtype) / bandwidth


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        of_threshold = -(_window(pre, threshold, ctx.bandwidth) * grad).sum(0) * threshold
        return grad * (pre > threshold), of_threshold, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        return None, -(_window(pre, threshold, ctx.bandwidth) * grad).sum(0), None
