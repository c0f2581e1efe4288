"""Model organisms: tiny ACE-Step 1.5 models with a planted text-to-audio circuit, and the recipes that make them."""
