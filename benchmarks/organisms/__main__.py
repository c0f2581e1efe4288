"""`python -m benchmarks.organisms`: train, check and evaluate organisms, synthesise their music, fit their scorer."""

from benchmarks.organisms.circuits.commands import circuits
from benchmarks.organisms.embedded.commands import app
from workbench.cli.main import run

app.command()(circuits)

if __name__ == "__main__":
    run(app)
