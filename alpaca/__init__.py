"""Controlled ablations of the instruction-tuning recipe: data, training, evaluation and report as one typed chain of stages."""
