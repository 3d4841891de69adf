"""A sample of `make autograd`: torch's own operators, their products against differences."""

from __future__ import annotations

import pytest
import torch

OPERATORS = {
    "agreed": {
        *("mul", "pow", "tanh", "softmax", "logsumexp", "cumprod", "matmul", "scatter_add"),
        *("linalg.inv", "linalg.pinv", "linalg.cholesky", "fft.rfft", "complex", "sgn"),
        *("nn.functional.conv2d", "nn.functional.conv_transpose2d", "nn.functional.batch_norm"),
        *("nn.functional.layer_norm", "nn.functional.gelu", "nn.functional.cross_entropy"),
    },
    "falls back": {"nn.functional.rrelu", "linalg.eig"},
    "doubted": {"normal", "as_strided_scatter"},
    "refused": {"nn.functional.multi_margin_loss"},
}


def test_no_product_of_an_operator_is_silently_wrong() -> None:
    pytest.importorskip("expecttest", reason="torch's database of operators needs expecttest")
    from tests.oracle.op_db import FAULTS, sweep

    wanted = set().union(*OPERATORS.values())
    rows = sweep(wanted, limit=1, dtypes=[torch.float64])
    assert [row for row in rows if row.verdict in FAULTS] == []
    assert {row.operator for row in rows} == wanted
    for verdict, operators in OPERATORS.items():
        assert {row.operator for row in rows if row.verdict == verdict} >= operators, verdict
