"""Steering: find directions that turn a concept up or down."""
