"""The embedded model organism: a tiny ACE-Step 1.5 with a planted text-to-audio circuit, and the recipe that
makes it.
"""
