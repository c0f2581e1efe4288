"""The model side of the workbench: adapters, tracing, edits, prompts, scorers, studies and the command line."""

import os
import sys

# Threads that wait for each other otherwise spin; beside any other busy process two of them then take five to forty
# times as long as one. Read when OpenMP is loaded, with torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    if "torch" in sys.modules:
        from workbench.threads import share_processors

        share_processors()
