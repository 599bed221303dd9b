"""Controlled ablations of the instruction-tuning recipe: one typed chain of stages."""
