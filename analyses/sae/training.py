"""Train several SAEs of a study in one pass over the activations, so that the training can be killed and continued."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from analyses.sae.distributed import Ranks
from analyses.sae.scaling import Scale
from analyses.sae.spec import InputScale, foretelling
from analyses.sae.stream import ResumableRows, Stream
from analyses.sae.train import Trainer, TrainSpec
from analyses.sae.training_state import Kept, TrainingState
from cache.errors import UserError
from workbench.sae.base import SAE

_log = logging.getLogger(__name__)


class StreamKey(NamedTuple):
    """What SAEs have in common that are trained on the same rows."""

    site: str
    pass_name: str
    input_scale: InputScale
    target_site: str

    @classmethod
    def of(cls, spec: TrainSpec) -> "StreamKey":
        """Return that of an SAE."""
        return cls(spec.site, spec.pass_name, spec.input_scale, spec.target_site)


class Trained(NamedTuple):
    """A trained SAE, on the CPU, and its training curves."""

    spec: TrainSpec
    sae: SAE
    curves: xr.Dataset


TOGETHER = ("source", "train_steps", "batch_size", "held_out_fraction", "data_seed")
"""Settings that SAEs trained in one pass must share."""


def check_together(specs: Sequence[TrainSpec]) -> None:
    """Raise UserError for specs that cannot be trained in one pass, or are the same."""
    for name in TOGETHER:
        values = {getattr(spec, name) for spec in specs}
        if len(values) > 1:
            raise UserError(
                f"Autoencoders trained in one pass share their {name}; got {' and '.join(map(str, sorted(values)))}. "
                "Train them one after the other."
            )
    if len({spec.model_dump_json() for spec in specs}) < len(specs):
        raise UserError("Two of the autoencoders are the same. Give each value once.")


class Training:
    """SAEs in training, each on the rows that it needs.

    Args:
        specs: of all SAEs that were asked for, from which a kept state chooses.
        rows: returns the training rows of a site and pass.
        steps: the steps that the rows' positions refer to.
        state: where the training is kept, or None.
        device: torch device.
        note: called with a sentence on each stream of rows before it is trained on.
        ranks: this process and the others that share the work.
    """

    def __init__(
        self,
        specs: Sequence[TrainSpec],
        rows: Callable[[str, str], ResumableRows],
        steps: tuple[int, ...],
        state: TrainingState | None,
        device: str,
        ranks: Ranks,
        note: Callable[[str], None] = _log.info,
    ) -> None:
        self._specs = specs
        self._rows = rows
        self._steps = steps
        self._state = state
        self._device = device
        self._ranks = ranks
        self._note = note

    def run(
        self, wanted: Sequence[TrainSpec], progress: Callable[[int, int], None] | None = None
    ) -> list[Trained]:
        """Train the wanted ones of the specs, or continue; progress is called with numbers of training steps.

        Raises:
            UserError: if rows are not finite or all equal, an objective cannot be used, or the kept state is damaged.
        """
        kept = self._state.load() if self._state else None
        with ExitStack() as stack:
            try:
                streams, trainers, first = self._begin(kept, wanted, stack)
            except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
                if not (self._state and kept):
                    raise
                raise UserError(
                    f"{self._state.file} is damaged. Remove it, and train again from the start."
                ) from error
            if self._ranks.is_first:
                self._foretell(streams)
            self._train(first, streams, trainers, progress if self._ranks.is_first else None)
        return [Trained(trainer.spec, *trainer.finish()) for trainer in trainers if trainer.spec in wanted]

    def _foretell(self, streams: Mapping[StreamKey, Stream]) -> None:
        for key, stream in streams.items():
            where = f" at {key.site} ({key.pass_name} pass)"
            self._note(foretelling(float(stream.scales[0].ratio.max()), where))

    def _begin(
        self, kept: Kept | None, wanted: Sequence[TrainSpec], stack: ExitStack
    ) -> tuple[dict[StreamKey, Stream], list[Trainer], int]:
        """Return what is trained, restored from a kept state with all that is wanted, and the steps done."""
        if kept and not {self._specs.index(spec) for spec in wanted} <= set(kept.header["specs"]):
            kept = None  # others were saved since
        chosen = [self._specs[place] for place in kept.header["specs"]] if kept else list(wanted)
        streams = {
            key: stack.enter_context(closing(self._stream(key, kept)))
            for key in dict.fromkeys(map(StreamKey.of, chosen))
        }
        trainers = [
            Trainer(spec, streams[StreamKey.of(spec)].scales, self._device, self._ranks) for spec in chosen
        ]
        return streams, trainers, self._restore(kept, streams, trainers) if kept else 0

    def _train(
        self,
        first: int,
        streams: Mapping[StreamKey, Stream],
        trainers: Sequence[Trainer],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        total = trainers[0].spec.train_steps
        for step in range(first, total):
            if progress:
                progress(step, total)
            batches = {key: stream.next() for key, stream in streams.items()}
            for trainer in trainers:
                trainer.step(step, batches[StreamKey.of(trainer.spec)])
            is_last = step == total - 1
            if self._state and self._ranks.is_first and (is_last or self._state.is_due()):
                self._keep(self._state, step + 1, streams, trainers)
        if progress:
            progress(total, total)

    def _stream(self, key: StreamKey, kept: Kept | None) -> Stream:
        target = self._rows(key.target_site, key.pass_name) if key.target_site else None
        return Stream(
            self._rows(key.site, key.pass_name),
            key.input_scale,
            self._steps,
            target,
            self._device,
            self._ranks,
            _scales(kept.arrays, key, self._steps) if kept else None,
        )

    def _keep(
        self,
        state: TrainingState,
        done: int,
        streams: Mapping[StreamKey, Stream],
        trainers: Sequence[Trainer],
    ) -> None:
        arrays = {
            f"{place}/{name}": value
            for place, trainer in enumerate(trainers)
            for name, value in trainer.state().items()
        }
        for key, stream in streams.items():
            arrays |= _scale_arrays(key, stream.scales)
        header: dict[str, Any] = {
            "done": done,
            "specs": [self._specs.index(trainer.spec) for trainer in trainers],
            "streams": [stream.state_dict() for stream in streams.values()],
        }
        state.save(header, arrays)

    def _restore(self, kept: Kept, streams: Mapping[StreamKey, Stream], trainers: Sequence[Trainer]) -> int:
        """Restore everything; return the number of training steps done."""
        for stream, state in zip(streams.values(), kept.header["streams"], strict=True):
            stream.load_state_dict(state)
        for place, trainer in enumerate(trainers):
            prefix = f"{place}/"
            trainer.restore(
                {
                    name.removeprefix(prefix): value
                    for name, value in kept.arrays.items()
                    if name.startswith(prefix)
                }
            )
        done, total = kept.header["done"], trainers[0].spec.train_steps
        if type(done) is not int or not 0 <= done <= total:
            raise ValueError(f"{done!r} of {total} training steps are done")
        return done


def _scale_arrays(key: StreamKey, scales: Sequence[Scale]) -> dict[str, np.ndarray]:
    """Return the scales of a stream as arrays by name."""
    return {
        f"scale/{'/'.join(key)}/{number}/{name}": value
        for number, scale in enumerate(scales)
        for name, value in (
            ("mean", scale.mean.cpu().numpy()),
            ("factor", scale.factor.cpu().numpy()),
            ("ratio", scale.ratio),
        )
    }


def _scales(arrays: Mapping[str, np.ndarray], key: StreamKey, steps: tuple[int, ...]) -> list[Scale]:
    """Return the scales of a stream from the arrays of a state."""
    return [
        Scale(
            torch.from_numpy(arrays[f"scale/{'/'.join(key)}/{number}/mean"]).clone(),
            torch.from_numpy(arrays[f"scale/{'/'.join(key)}/{number}/factor"]).clone(),
            steps if key.input_scale == "step" else (),
            arrays[f"scale/{'/'.join(key)}/{number}/ratio"],
        )
        for number in range(2 if key.target_site else 1)
    ]
