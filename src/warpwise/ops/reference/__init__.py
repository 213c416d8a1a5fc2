"""Every operator in plain PyTorch: any dtype and device, 2-D and 3-D, twice differentiable. The standard of truth."""
