"""The model side of the workbench: adapters, tracing, interventions, prompts, scorers, studies and the command line."""

import os

# Intel's matrix products otherwise choose their order of summation by the size of the batch, and a row of a float32
# batch differs from the same clip generated alone by some 2e-6. Read at the first product; no effect elsewhere.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# Threads that wait for each other otherwise spin; beside any other busy process two of them then take five to ten times
# as long as one. Read when OpenMP is loaded, with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
