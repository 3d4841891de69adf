"""What can be asked of a trained net. One file each, one line each here."""

DIAGNOSTICS = {
    "spectrum": "top Hessian eigenvalues with a certificate, and the density; or along a run",
    "blocks": "top Hessian eigenvalues of every layer or stage on its own",
    "trace": "trace of the Hessian, with its error",
    "activations": "share of zero activations and dead units, block by block; or along a run",
    "gradflow": "gradient norm of live, dead and regrown weights by layer; or along a run",
    "signal": "size of outputs and gradients through the depth, and what tells samples apart",
    "landscape": "loss on a line or a plane through the weights of one net, several, or a run",
    "inputscape": "loss on planes through the images",
    "perturbation": "loss along the top Hessian eigenvectors, beside the quadratic model",
}
