"""Run a model's pipeline for a batch of rows: the visit of each call, and what it gives."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Bool

from workbench.engine.batch import Batch, Row
from workbench.engine.conditioning import ConditioningTable
from workbench.engine.rows import acting_edits, call_rows, captured_passes, shared_clips
from workbench.engine.runs import CallInputs, CallLabel, Capture, Generation, Sink
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.engine.velocities import VelocityEdits
from workbench.engine.visit import visit_call
from workbench.models.architecture import Architecture
from workbench.models.pipeline_call import cond_inputs, conditioning_key, conditionings


def run_batch(
    model: Architecture,
    batch: Batch,
    settings: GenerationSettings,
    capture: Capture | None,
    sink: Sink | None,
    velocity_steps: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> Generation:
    """Generate the runs of a planned batch (see `AudioDiffusionModel.generate_batch`)."""
    from workbench.plain_nnsight import save

    clips = batch.rows
    calls: list[CallLabel] = []
    kept: dict[Site, list[torch.Tensor]] = defaultdict(list)
    velocities: dict[int, torch.Tensor] = {}
    table = ConditioningTable() if batch.edits else None
    inputs: dict[int, CallInputs] = {}
    started: set[int] = set()
    computed: list[int] = []
    finite: list[torch.Tensor] = []

    changes = VelocityEdits(batch.edits)

    def keep(site: Site, step: int, values: torch.Tensor) -> None:  # noqa: ARG001 - steps come in order
        kept[site].append(values)

    def is_known(clip: int, pass_name: str) -> bool:
        return table is not None and table.has(conditioning_key(clips[clip], pass_name))

    access = model.call_access(model.traced_denoiser())
    following = model.following(changes.apply) if changes else nullcontext()
    with following, torch.no_grad(), model.nn.trace(**model.pipeline_arguments(clips, settings)) as tracer:
        model.encode(clips, access, sharing=bool(batch.edits))
        for _ in tracer.iter[: settings.num_steps]:
            label = model.label_call(access.arguments(), len(clips))
            if progress is not None:
                progress(label.step, settings.num_steps)
            reads_velocities = label.step in velocity_steps
            acting = acting_edits(label, batch.edits)
            captured = captured_passes(capture, label.step, batch.requested)
            rows = call_rows(
                label, clips, acting, started, reads_velocities, batch.only_read, is_known, captured
            )
            started |= {edit.row for edit in acting}
            calls.append(label)
            computed.append(len(rows.run))
            finite.append(access.finite_rows())
            if reads_velocities:
                inputs[label.step] = cond_inputs(access, rows, clips, batch.requested)
            mask = access.row_mask(rows)
            access.choose_rows(rows, clips)
            if table is not None:
                table.start_call(
                    conditionings(label, rows.run, clips), conditionings(label, rows.stored, clips)
                )
                if table.complete and not batch.embeds_conditioning:
                    access.skip_conditioning(len(rows.run))
            visit_call(access, rows, replace(batch, edits=acting), capture, mask, sink or keep, table)
            if changes:
                changes.read(rows, access.velocities())
            velocity = access.give_rows(rows, read=reads_velocities)
            if velocity is not None:
                cond = [label.row(clip, "cond") for clip in batch.requested]
                velocities[label.step] = velocity[cond]
        output = save(model.nn.output)
    latents = model.output_latents(output)
    finite.append(torch.isfinite(latents).flatten(1).all(dim=1))
    broke_at = _broke_at(calls, finite, clips)
    shared = shared_clips(clips, started)
    owners = [shared[row] for row in batch.requested]
    return Generation(
        latents=latents[list(batch.requested)],
        calls=calls,
        activations={site: torch.stack(values, dim=1) for site, values in kept.items()},
        velocities=velocities,
        inputs=inputs,
        rows=sum(computed),
        shared_with=tuple(map(owners.index, owners)),
        broke_at=tuple(broke_at[row] for row in batch.requested),
    )


def _broke_at(
    calls: Sequence[CallLabel], finite: Sequence[Bool[torch.Tensor, " _rows"]], clips: Sequence[Row]
) -> tuple[int | None, ...]:
    """Return the step at which each clip's latents became NaN or infinite, or None.

    `finite` says for each row of every call whether its latents were finite before it, and finally for every clip.
    """
    if bool(finite[-1].all()):
        return (None,) * len(clips)
    before = [flags.tolist() for flags in finite]
    broken: list[int | None] = []
    for clip, spec in enumerate(clips):
        if spec.shadow_of is not None or before[-1][clip]:
            broken.append(None)
            continue
        later = [before[i + 1][calls[i + 1].row(clip, "cond")] for i in range(len(calls) - 1)] + [False]
        broken.append(next(call.step for call, is_finite in zip(calls, later, strict=True) if not is_finite))
    return tuple(broken)
