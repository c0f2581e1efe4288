"""Artefacts published by other people: parsed safely, validated, and stored as safetensors with their origin."""
