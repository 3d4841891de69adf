"""A pretend GPU: tensors on the CPU that say they are on cuda:0, and are held to it."""
