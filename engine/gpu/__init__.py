"""NVIDIA GPUs: which there are, their driver, and the compiler of their kernels."""
