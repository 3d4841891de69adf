"""No set of eigenvalues is silently wrong: 100 of the 3,000 matrices of `make operators`."""

from __future__ import annotations

import operators
import pytest

from sparsediag.curvature.certificate import certify
from sparsediag.curvature.lanczos import eigenpairs


@pytest.mark.parametrize("kind", range(len(operators.KINDS)), ids=operators.KINDS)
def test_no_set_of_eigenvalues_is_wrong_and_called_converged(kind: int) -> None:
    for turn in range(10):
        operator = operators.draw(kind + turn * len(operators.KINDS), sizes=(20, 60, 150))
        which, tol, seed = operator.which, operator.tol, operator.seed
        search = eigenpairs(
            operator,
            operator.a[0],
            top=operator.top,
            which=which,
            tol=tol,
            seed=seed,
            start=operator.start,
        )
        assert operator.products == search.num_matvecs
        certificate = certify(
            operator,
            search.values,
            search.vectors,
            which=which,
            tol=tol,
            search=search,
            each=turn % 2 == 0,
            seed=seed,
        )
        if not certificate.doubts:
            assert operator.is_right(search.values)
            assert operator.covered(search.values, certificate.intervals)
            assert operator.within(search.values, search.vectors, certificate.angles)
        else:  # only where the tolerance is below the noise, or the rounding of an eigenvalue of 0
            assert operator.noise > 0 or operator.kind == "rank deficient"
