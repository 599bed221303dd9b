"""What a training run needs before it runs: memory, operations, seconds. Arithmetic alone; imports no torch."""
