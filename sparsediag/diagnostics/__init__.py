"""What can be asked of a trained net. One file each, one line each here."""

DIAGNOSTICS = {
    "spectrum": "top Hessian eigenvalues and eigenvectors, with their residuals",
    "activations": "share of zero activations and dead units, block by block",
    "gradflow": "gradient norm of the live weights, layer by layer",
    "landscape": "loss on a line or a plane through the weights",
    "perturbation": "loss along the top Hessian eigenvectors, beside the quadratic model",
}
