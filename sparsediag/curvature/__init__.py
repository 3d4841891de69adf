"""Products with the Hessian, Gauss-Newton and Fisher matrices, and certified eigenvalues."""
