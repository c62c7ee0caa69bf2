"""RANK. Training proper, on torch: loader, collective, gradients, step, loop, checkpoints."""
