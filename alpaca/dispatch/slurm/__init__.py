"""The graph on a SLURM cluster: queued as job arrays, followed by markers; what fails or ends is queued again."""
