"""Training Your Sparse Neural Network Better with Any Mask (Jaiswal et al., ICML 2022): ToST."""
