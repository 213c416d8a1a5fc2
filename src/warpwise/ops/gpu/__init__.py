"""CUDA kernels (Triton), by the file names of `reference`; until they exist, CUDA tensors run the reference."""
