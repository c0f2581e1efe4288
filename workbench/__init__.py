"""The model side of the workbench: adapters, tracing, interventions, prompts, scorers, studies and the command line."""
