"""The dashboard's server starts, and lays out its pages, without what computes results."""

import subprocess
import sys
from pathlib import Path

from workbench.studies.study import Study

SLOW = {"torch", "sklearn", "librosa", "numba", "diffusers", "nnsight", "transformers"}
"""Together they would take 500 MB of memory and most of the time to start."""
PROGRAM = f"""
import sys
from pathlib import Path
import numpy as np
import dashboards.app
from dashboards.pages import PAGES
from workbench.spectrogram import mel_spectrogram
from workbench.tensor_files import load_tensors, write_tensors
file = Path(sys.argv[1])
write_tensors(file, {{"half": np.ones(3, np.float16)}}, {{}})
assert load_tensors(file.parent, file.name)[0]["half"].tolist() == [1, 1, 1]
mel_spectrogram(np.zeros((1, 4096), np.float32), 16000)
context = dashboards.app.open_context(Path(sys.argv[2]))
for page in PAGES:
    page.show(context, {{}})
    page.choices(context, {{}})
print(sorted({SLOW} & sys.modules.keys()))
"""


def test_the_server_imports_nothing_that_computes(study: Study, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "codes.safetensors"), str(study.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.returncode) == ("[]", 0), run.stderr
