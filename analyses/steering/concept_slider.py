"""Concept Sliders: train LoRAs that turn a concept up (Gandikota et al., arXiv 2311.12092; TADA, arXiv 2602.11910)."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from analyses.steering.clip_stream import check_progress
from analyses.steering.pairs import ends, pairs_towards
from analyses.steering.slider import Factors, Slider, linear_sites
from analyses.steering.slider_training import Checkpoints, Lora, adapted
from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, parse_sites
from workbench.engine.tensors import HashedTensor
from workbench.models.base import AudioDiffusionModel
from workbench.models.network_call import NetworkCall, call_at
from workbench.prompts.prompt_sets import Pair, PromptSet, asked_prompt_set
from workbench.provenance import provenance
from workbench.seeds import Seed
from workbench.validation import Number, must_be, validated

LONGEST_GRADIENT = 1.0
"""Norm to which longer gradients are shortened, as in TADA's code."""
ATTENTIONS = ("self_attn", "cross_attn")
Progress = Callable[[int, int], None]


def concept_slider(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    *,
    rank: int = 4,
    alpha: float = 1.0,
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    held_out: Collection[str] = (),
    pairs: int = 16,
    seed: int = 0,
    iterations: int = 500,
    eta: float = 7.0,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-2,
    settings: GenerationSettings | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Slider:
    """Train a LoRA with PEFT that makes the network predict a concept more strongly than the prompt says.

    In each iteration a clip with the negative value is generated, with the LoRA and with guidance, up to a random step.
    On its latents x the loss is the mean square of

        v_lora(x, positive) - v(x, negative) - eta · (v(x, positive) - v(x, null))

    with the network's velocities v without the LoRA, where `positive` and `negative` are the prompts of a random pair
    and `null` is the conditioning of the null pass. AdamW follows its gradient.

    Args:
        model: the model; it is the same as before afterwards.
        concept: one of the prompt set's.
        sites: attentions (`tf3.cross_attn`, `*.self_attn`), of which all four projections are adapted, or single
            projections (`tf3.cross_attn.k`).
        rank: rank of the LoRA; TADA's are 4, 8 and 16.
        alpha: a strength of 1 is `alpha / rank` times the product of the factors.
        positive: value that a positive strength leads to; by default the concept's first.
        negative: value of the neutral prompts; by default all others.
        prompts: prompt set, or its name or file.
        held_out: prompts that are in none of the pairs.
        pairs: number of pairs of prompts.
        seed: draws the pairs, the LoRA's initial weights, and the pair, step and noise of each iteration.
        iterations: training steps.
        eta: how much more of the concept.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        settings: generation settings; guidance is on in all steps.
        checkpoints: folder that keeps the state of the training. If a training with the same arguments was interrupted,
            it continues there; with more iterations, a complete one is continued, too.
        progress: called as `progress(done, total)` with numbers of iterations.

    Returns:
        The slider; its `training` has all options, the prompts, and the loss of each iteration.

    Raises:
        UserError: if a concept, value, site or prompt set is unknown, an option is not allowed, the model has no null
            pass, the folder belongs to another training, or the loss is not finite.
    """
    must_be(AudioDiffusionModel, model, "A slider is made with a model, such as wb.load('organism-shared')")
    settings = model.guided_throughout(settings_or_default(settings))
    check_progress(progress)
    options = validated(
        _Options,
        {
            "rank": rank,
            "alpha": alpha,
            "pairs": pairs,
            "seed": seed,
            "iterations": iterations,
            "eta": eta,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
        },
        "Invalid slider",
    )
    _check_settings(model, settings)
    prompt_set = asked_prompt_set(prompts)
    positive, negatives = ends(prompt_set, concept, positive, negative)
    chosen = pairs_towards(
        prompt_set, concept, positive, negatives, options.pairs, options.seed, held_out=held_out
    )
    modules = _modules(model, sites)
    _check_rank(options.rank, modules, model)
    training = {
        **options.__dict__,
        "prompts": [[pair.clean.text, pair.corrupt.text] for pair in chosen],
        "optimiser": "AdamW",
        "longest_gradient": LONGEST_GRADIENT,
    }
    described: dict[str, Any] = {
        "concept": concept,
        "positive": positive,
        "negative": " or ".join(negatives),
        "model": model.describe(),
        "settings": settings,
        "sigmas": tuple(model.sigmas(settings)),
    }
    identity = {
        **described,
        "settings": settings.model_dump(mode="json"),
        "modules": list(modules.values()),
        **training,
    }
    kept = Checkpoints(checkpoints, {name: value for name, value in identity.items() if name != "iterations"})
    with (
        kept.held(),
        adapted(model.denoiser, list(modules.values()), options.rank, options.alpha, options.seed) as lora,
    ):
        losses = _train(_Objective(model, settings, chosen, options), lora, options, kept, progress)
        factors = {
            site: Factors(module, *map(HashedTensor.of, lora.factors(module)))
            for site, module in modules.items()
        }
    training |= {"losses": losses, "provenance": provenance(peft=version("peft"))}
    return Slider(**described, factors=factors, alpha=options.alpha, training=training)


Finite = Annotated[Number, Field(allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Checked options of a training."""

    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[Finite, Field(gt=0)]
    pairs: int
    seed: Seed
    iterations: Annotated[int, Field(ge=1)]
    eta: Finite
    learning_rate: Annotated[Finite, Field(gt=0)]
    weight_decay: Annotated[Finite, Field(ge=0)]


def _check_settings(model: AudioDiffusionModel, settings: GenerationSettings) -> None:
    model.check_settings(settings)
    if "null" not in model.passes(settings):
        raise UserError(
            "A slider is trained with guidance, because its loss contains the null pass: use a guidance scale above 1, "
            "and a model without distilled guidance."
        )
    if settings.num_steps < 2:
        raise UserError("A slider is trained on partly generated clips: use at least 2 steps.")


def _modules(model: AudioDiffusionModel, sites: str | Sequence[str]) -> dict[str, str]:
    """Return the names of the linear modules to adapt, by site and in order of computation."""
    chosen: set[Site] = set()
    for site in parse_sites(sites, model.n_blocks, model.block_names):
        if site.part in ATTENTIONS:
            chosen.update(Site(site.block, f"{site.part}{inner}") for inner in (".q", ".k", ".v", ""))
        else:
            chosen.add(site)
    names = {site: name for name, site in linear_sites(model).items()}
    for site in chosen:
        if site not in names:
            raise UserError(
                f"A slider changes attentions, such as tf3.cross_attn, or their projections, such as "
                f"tf3.cross_attn.k; got {site}."
            )
    return {str(site): names[site] for site in sorted(chosen, key=lambda site: site.order)}


def _check_rank(rank: int, modules: Mapping[str, str], model: AudioDiffusionModel) -> None:
    """Raise UserError for a rank that a module's weights cannot have."""
    for site in modules:
        linear = model.linear(Site.parse(site))
        highest = min(linear.in_features, linear.out_features)
        if rank > highest:
            raise UserError(
                f"The rank must be at most {highest}, the highest of the weights of {site}; got {rank}."
            )


class _Objective:
    """The loss of an iteration, whose pair, step and noise are drawn from the seed and its number."""

    def __init__(
        self,
        model: AudioDiffusionModel,
        settings: GenerationSettings,
        pairs: Sequence[Pair],
        options: _Options,
    ) -> None:
        self._model = model
        self._settings = settings
        self._pairs = pairs
        self._options = options
        self._first_calls: dict[str, NetworkCall] = {}

    def loss(self, iteration: int, lora: Lora) -> Float[torch.Tensor, ""]:
        draws = np.random.default_rng((self._options.seed, iteration))
        pair = self._pairs[draws.integers(len(self._pairs))]
        step = int(draws.integers(1, self._settings.num_steps))
        noise = int(draws.integers(2**63))
        network = self._model.denoiser
        negative = call_at(self._model, Clip(pair.corrupt.text, noise), self._settings, step)
        positive = self._first_call(pair.clean.text).at_step_of(negative.of_pass("cond"))
        with torch.no_grad(), lora.off():
            target = slider_target(
                negative.of_pass("cond").run(network),
                positive.run(network),
                negative.of_pass("null").run(network),
                self._options.eta,
            )
        velocity = positive.run(network)
        wide = torch.promote_types(velocity.dtype, torch.float32)
        return torch.nn.functional.mse_loss(velocity.to(wide), target.to(wide))

    def _first_call(self, prompt: str) -> NetworkCall:
        """Return the cond pass of a prompt's first call, whose conditioning is that of all its calls."""
        if prompt not in self._first_calls:
            call = call_at(self._model, Clip(prompt, 0), self._settings, 0)
            self._first_calls[prompt] = call.of_pass("cond")
        return self._first_calls[prompt]


def slider_target(
    negative: Float[torch.Tensor, " row *latent"],
    positive: Float[torch.Tensor, " row *latent"],
    null: Float[torch.Tensor, " row *latent"],
    eta: float,
) -> Float[torch.Tensor, " row *latent"]:
    """Return the velocity that a slider is trained to predict for the positive prompt, from those of three prompts."""
    return negative + eta * (positive - null)


def _train(
    objective: _Objective, lora: Lora, options: _Options, kept: Checkpoints, progress: Progress | None
) -> list[float]:
    """Train the LoRA from its last checkpoint on; return the loss of each iteration."""
    optimiser = torch.optim.AdamW(
        lora.parameters, lr=options.learning_rate, weight_decay=options.weight_decay
    )
    losses = kept.load(lora, optimiser, options.iterations)
    for iteration in range(len(losses), options.iterations):
        if progress:
            progress(iteration, options.iterations)
        loss = objective.loss(iteration, lora)
        if not bool(torch.isfinite(loss)):
            raise UserError(
                f"The loss is not finite in iteration {iteration}. Use a smaller learning rate or eta, or a more "
                "precise dtype."
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lora.parameters, LONGEST_GRADIENT)
        optimiser.step()
        losses.append(float(loss.detach()))
        kept.save(lora, optimiser, losses, options.iterations)
    if progress:
        progress(options.iterations, options.iterations)
    return losses
