"""Many traces in one process: memory, open files and threads stay where they were."""

import gc
import threading
from pathlib import Path

import psutil
import torch

from tests.workbench.studies.test_study import study_spec
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.studies.tracing import trace_study

TRACES = 200
WARM_UP = 40


def test_200_traces_leave_memory_files_and_threads_where_they_were(tiny: AceStep15, tmp_path: Path) -> None:
    process = psutil.Process()
    seen: dict[int, tuple[int, int, int, int]] = {}

    def look(done: int, total: int) -> None:
        if done in (WARM_UP, TRACES):
            gc.collect()
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            seen[done] = (
                process.memory_info().rss,
                process.num_fds(),
                threading.active_count(),
                tensors,
            )

    spec = study_spec(
        tiny,
        settings=GenerationSettings(duration=0.5, num_steps=1),
        steps=(0,),
        n_prompts=4,
        seeds=TRACES // 4,
        clips_per_shard=1,
    )
    trace_study(tmp_path / "many", spec, tiny, look)
    before, after = seen[WARM_UP], seen[TRACES]
    assert (
        after[0] - before[0] < 8 * 2**20
    )  # 160 traces; a leak of one clip's activations alone would be 10 MB
    assert after[1] <= before[1]
    assert after[2] <= before[2]
    assert after[3] <= before[3] + 5
