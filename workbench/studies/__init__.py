"""Studies: the folder with everything of one investigation, and how it is traced."""
