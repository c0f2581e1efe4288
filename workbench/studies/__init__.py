"""Studies: folders with everything of one investigation, and how they are traced."""
