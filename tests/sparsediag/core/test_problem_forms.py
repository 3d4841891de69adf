"""Problems of nets that take several inputs, give several outputs, or come wrapped."""

from __future__ import annotations

import copy
from collections import UserDict
from functools import partial
from typing import Any

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsediag import Mask, Problem, activations, gradflow, landscape, perturbation, spectrum
from sparsediag.core.batches import materialize, num_samples, rechunk

close = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
CPU = torch.device("cpu")
BATCHES = cases.classes((6, 3), (4,), 3)


def plain() -> nn.Sequential:
    return cases._net(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))


class Halves(nn.Module):
    """`plain` for inputs that come in two parts, and a number that says how often they count."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain()

    def forward(self, left: Tensor, right: Tensor, times: int = 1) -> Tensor:
        return self.body(torch.cat((left, right), dim=1)) * times


class Carrying(nn.Module):
    """`plain` as Hugging Face has nets: labels in, a loss and logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        z = self.body(x)
        return {"loss": None if labels is None else F.cross_entropy(z, labels), "logits": z}


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, :2], x[:, 2:]


FORMS: dict[str, Any] = {
    "positional": lambda: (Halves(), [(halves(x), y) for x, y in BATCHES]),
    "a list": lambda: (Halves(), [[list(halves(x)), y] for x, y in BATCHES]),
    "keywords": lambda: (
        Halves(),
        [(dict(zip(("left", "right"), halves(x), strict=True)) | {"times": 1}, y)
         for x, y in BATCHES],
    ),
    "one dict": lambda: (Carrying(), [UserDict(x=x, labels=y) for x, y in BATCHES]),
    "logits": lambda: (Carrying(), [({"x": x}, y) for x, y in BATCHES]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_function(form: str) -> None:
    net, batches = FORMS[form]()
    problem, expected = Problem(net, batches), Problem(plain(), BATCHES)
    v = torch.randn(problem.size, generator=torch.Generator().manual_seed(0)).double()
    assert problem.samples == 9
    assert problem.separable
    assert problem.value() == pytest.approx(expected.value(), abs=1e-14)
    close(problem.gradient(), expected.gradient())
    close(problem.hvp(v), expected.hvp(v))
    top, other = spectrum(problem, top=2), spectrum(expected, top=2)
    close(torch.tensor(top.eigenvalues), torch.tensor(other.eigenvalues), atol=1e-8)
    seen, known = landscape(problem, points=3), landscape(expected, points=3)
    close(torch.tensor(seen.loss), torch.tensor(known.loss))
    close(torch.tensor(seen.accuracy), torch.tensor(known.accuracy))


def test_the_batches_of_a_dict_are_left_alone() -> None:
    batches = [UserDict(x=x, labels=y) for x, y in BATCHES]
    before = [batch["x"].clone() for batch in batches]
    Problem(Carrying(), batches).hvp()
    assert all(torch.equal(b["x"], x) for b, x in zip(batches, before, strict=True))


def test_a_loss_without_targets() -> None:
    net = cases._net(lambda: nn.Linear(4, 4))
    x = BATCHES[0][0]
    problem = Problem(net, [(x, None)], loss=lambda outputs, _: outputs.square().mean())
    w = torch.cat([net.weight, net.bias[:, None]], dim=1).detach()
    ones = torch.cat([x, torch.ones(len(x), 1).double()], dim=1)
    assert problem.samples == len(x)
    assert problem.value() == pytest.approx(float((ones @ w.T).square().mean()), abs=1e-14)


@pytest.mark.parametrize("samples", [1, 4, 100])
def test_chunks_of_dicts_are_the_same_samples(samples: int) -> None:
    batches = materialize([({"x": x, "n": 3}, (y, y)) for x, y in BATCHES], CPU)
    chunks = rechunk(batches, samples)
    assert max(map(num_samples, chunks)) <= samples
    assert torch.equal(torch.cat([x["x"] for x, _ in chunks]), torch.cat([x for x, _ in BATCHES]))
    assert torch.equal(torch.cat([y[1] for _, y in chunks]), torch.cat([y for _, y in BATCHES]))
    assert {x["n"] for x, _ in chunks} == {3}


def test_batches_whose_other_arguments_differ_are_not_joined() -> None:
    batches = materialize([({"x": x, "n": i}, y) for i, (x, y) in enumerate(BATCHES)], CPU)
    assert [x["n"] for x, _ in rechunk(batches, 100)] == [0, 1]


# nets of several kinds


def test_a_net_of_two_precisions_runs_in_both() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x.to(self.a.weight.dtype)).tanh().to(self.b.weight.dtype))

    net, whole = Mixed().double(), Mixed().double()
    net.a.float()
    whole.load_state_dict(net.state_dict())
    problem, expected = Problem(net, BATCHES), Problem(whole, BATCHES)
    assert problem.weights.dtype == torch.float64
    assert problem.value() == pytest.approx(expected.value(), abs=1e-6)
    v = torch.ones(problem.size).double()
    torch.testing.assert_close(problem.hvp(v), expected.hvp(v), rtol=0, atol=1e-5)
    assert {p.dtype for p in net.parameters()} == {torch.float32, torch.float64}


def test_wrapped_nets_are_the_net_inside() -> None:
    net, expected = plain(), Problem(plain(), BATCHES)
    wrapped = {
        "compiled": torch.compile(net, backend="eager"),
        "parallel": nn.DataParallel(net),
        "both": nn.DataParallel(torch.compile(net, backend="eager")),
    }
    for name, one in wrapped.items():
        problem = Problem(one, BATCHES)
        assert problem.net is net, name
        assert problem.digest == expected.digest


class Words(nn.Module):
    """A language model of one layer, with tied embeddings, as text comes: tokens in, tokens out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=torch.double)
        return self.out(self.layer(self.embed(tokens), src_mask=hidden, is_causal=True))


def language() -> Problem:
    text = torch.randint(11, (6, 8), generator=torch.Generator().manual_seed(1))
    net = cases._net(Words)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z.flatten(0, 1), y.flatten())

    return Problem(net, [(text[:, :-1], text[:, 1:])], loss=loss)


def test_a_transformer_on_text_against_its_dense_hessian() -> None:
    problem = language()
    assert problem.size == sum(p.numel() for p in problem.net.parameters())  # tied ones once
    some = problem.view(params="out.*,layer.norm*,embed.*")
    hessian = torch.stack([some.hvp(e) for e in torch.eye(some.size).double()])
    close(hessian, hessian.T)
    found = spectrum(some, top=3, tol=1e-8)
    assert found.converged
    values = torch.linalg.eigvalsh(hessian).flip(0)[:3]
    close(torch.tensor(found.eigenvalues), values, atol=1e-6)
    w, v, step = problem.weights, torch.randn(problem.size).double(), 1e-5
    bend = (problem.gradient(w + step * v) - problem.gradient(w - step * v)) / (2 * step)
    close(problem.hvp(v), bend, atol=1e-6)


def test_a_transformer_on_text_through_every_diagnostic() -> None:
    problem = language()
    before = copy.deepcopy(problem.net.state_dict())
    assert gradflow(problem).flow.min() > 0
    assert len(activations(problem, modules="layer.*norm*").names) == 2
    assert landscape(problem, points=3).loss.shape == (3, 3)
    assert perturbation(problem, top=1, points=3).loss.shape[-1] == 3
    assert all(torch.equal(t, before[n]) for n, t in problem.net.state_dict().items())


# refusals


def test_a_pruned_net_is_refused_with_the_way_out() -> None:
    net = plain()
    prune.random_unstructured(net[0], "weight", 0.5)
    with pytest.raises(
        ValueError, match=r"^'0' is pruned by torch.nn.utils.prune; .*strip_pruning"
    ):
        Problem(net, BATCHES)


class Tokens(nn.Module):
    """Four scores for each of some tokens."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.embed, self.length = nn.Embedding(9, 4), length

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens.abs())


X, Y = BATCHES[0]
WRONG: dict[str, tuple[Any, Any, str]] = {
    "no list around the pair": (plain(), (X, Y), "a batch is a Tensor; need pairs"),
    "three parts": (plain(), [(X, X, Y)], r"a batch is a tuple of 3; need pairs \(inputs, targets"),
    "words": (plain(), [("text", Y)], "the inputs of a batch are str, and hold no tensor"),
    "another shape": (plain(), [(X[:, :3], Y)], r"the net failed on inputs \(6, 3\): RuntimeError"),
    "a keyword too many": (
        plain(), [{"x": X, "labels": Y}], r"the net failed on inputs \{'x': \(6, 4\), .*TypeError",
    ),
    "no targets": (plain(), [(X, None)], r"the loss failed on .* of .* targets None"),
    "real targets": (plain(), [(X, X[:, :3])], "the loss failed on .* give a loss, such as"),
    "one score": (nn.Linear(4, 1).double(), [(X, Y)], r".* are not scores \(N, classes\)"),
    "tokens": (Tokens(3), [(X[:, :3].long(), X[:, :3].long())], ".* are not scores"),
    "classes or tokens": (Tokens(4), [(X.long(), X.long())], ".* are not scores"),
    "targets too few": (
        plain(), [(X, Y[:4])], r"the loss failed on .* targets \(4,\): .*not scores",
    ),
    "no shape yet": (nn.LazyLinear(3), [(X, Y)], "'weight' has no shape yet; run one batch"),
    "no values": (nn.Linear(4, 3, device="meta"), [(X, Y)], "'weight' is on the meta device"),
    "complex": (nn.Linear(4, 3, dtype=torch.cfloat), [(X, Y)], "'weight' is complex; need real"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_what_cannot_be_is_one_line(name: str) -> None:
    net, batches, message = WRONG[name]
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        Problem(net, batches)
    assert "\n" not in str(caught.value)


def test_a_mask_of_a_wrapped_net_has_the_names_inside() -> None:
    net = plain()
    mask = Mask({"0.weight": torch.rand(6, 4) < 0.5})
    assert (
        Problem(nn.DataParallel(net), BATCHES, mask=mask).size
        == Problem(net, BATCHES, mask=mask).size
    )


def test_shapes_that_broadcast_are_refused() -> None:
    net = nn.Linear(4, 1).double()
    with pytest.raises(ValueError, match=r"targets \(6,\): UserWarning: Using a target size"):
        Problem(net, [(X, X[:, 0])], loss=F.mse_loss)


def test_scores_of_pixels_are_scores() -> None:
    net = cases._net(lambda: nn.Conv2d(1, 3, 1))
    x, y = torch.ones(2, 1, 4, 4).double(), torch.ones(2, 4, 4).long()
    assert Problem(net, [(x, y)]).value() == pytest.approx(F.cross_entropy(net(x), y).item())


def test_a_graph_is_not_cut() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return edges @ self.fc(x)

    edges = torch.rand(6, 6, generator=torch.Generator().manual_seed(2)).double()
    problem = Problem(cases._net(Graph), [((X, edges), Y)])
    assert not problem.separable
    assert spectrum(problem, top=1).converged
    assert landscape(problem, points=3).loss.shape == (3, 3)


def test_another_forward_is_another_function() -> None:
    def made(act: str, scale: float) -> nn.Module:
        space: dict[str, Any] = {"nn": nn}
        exec(
            "class Net(nn.Linear):\n"
            f"    scale = {scale}\n"
            f"    def forward(self, x): return super(Net, self).forward(x).{act}() * self.scale",
            space,
        )
        net = cases._net(lambda: space["Net"](4, 3))
        net.scale = scale
        return net

    digests = [
        Problem(made(a, s), BATCHES).digest for a, s in (("relu", 1), ("tanh", 1), ("relu", 2))
    ]
    assert len(set(digests)) == 3
    assert digests[0] == Problem(made("relu", 1), BATCHES).digest


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"net": nn.Linear}, "the net is 'Linear'; need an nn.Module"),
        ({"mask": {"0.weight": X}}, "the mask is 'dict'; need a Mask"),
        ({"loss": "mse_loss"}, "the loss is 'str'; need a function"),
    ],
)
def test_arguments_of_another_kind_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Problem(**({"net": plain(), "batches": BATCHES} | wrong))


def test_a_problem_tells_of_itself_in_a_line() -> None:
    assert repr(Problem(plain(), BATCHES)) == "Problem(Sequential, 9 samples, 51 live)"
