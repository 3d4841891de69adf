"""Tweaks: the schedules of the ghosts, and label smoothing against its closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsediag.core.errors import ConfigError
from sparsediag.models import MODELS, SKIPS, GhostReLU, GhostSkip, build
from training.config import Run
from training.tweaks import GROUPS, TWEAKS, Tweak, expand_groups
from training.tweaks.ghosts import GhostNeurons, GhostSkips
from training.tweaks.smoothing import Smoothing

EPOCHS = 180


def _net(tweak: Tweak) -> nn.Module:
    torch.manual_seed(0)
    return build("resnet18", width=4, channels=1, **tweak.options())


def _strengths(tweak: Tweak, epochs: int = EPOCHS) -> list[float]:
    """The strength in every epoch, the same in all ghosts of a net."""
    net, kind = _net(tweak), GhostReLU if isinstance(tweak, GhostNeurons) else GhostSkip
    found = []
    for epoch in range(epochs):
        tweak.update(net, epoch, epochs)
        (strength,) = {m.strength for m in net.modules() if isinstance(m, kind)}
        found.append(strength)
    return found


def _images() -> Tensor:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def _gap(classes: int, alpha: float) -> float:
    """How far the true class must lie above the others for the smallest smoothed loss."""
    return math.log((1 - alpha + alpha / classes) / (alpha / classes))


def test_a_tweak_does_nothing_unless_it_says_so() -> None:
    tweak, net = Tweak(), _net(Tweak())
    before = [t.clone() for t in net.state_dict().values()]
    tweak.update(net, 0, EPOCHS)
    assert all(map(torch.equal, net.state_dict().values(), before))
    assert (tweak.options(), tweak.plain_from(EPOCHS)) == ({}, 0)
    assert tweak.loss(F.cross_entropy, 0, EPOCHS) is F.cross_entropy


@pytest.mark.parametrize(("name", "over"), [("ghost_neurons", 90), ("ghost_skips", 90)])
def test_ghosts_are_over_before_the_first_drop(name: str, over: int) -> None:
    assert TWEAKS[name]().plain_from(EPOCHS) == over
    assert TWEAKS[name](until=0.25).plain_from(EPOCHS) == 45  # type: ignore[call-arg]
    assert Smoothing().plain_from(EPOCHS) == 0


@pytest.mark.parametrize("name", ["ghost_neurons", "ghost_skips"])
@pytest.mark.parametrize("epochs", [1, 2, 6, 180])
def test_the_last_epoch_has_no_ghosts(name: str, epochs: int) -> None:
    assert TWEAKS[name](until=0.999).plain_from(epochs) == epochs - 1  # type: ignore[call-arg]


# ghosts


def test_beta_grows_evenly_from_1_to_10_and_then_there_is_relu() -> None:
    strengths = _strengths(GhostNeurons())
    assert [1 / s for s in strengths[:90]] == pytest.approx([1 + 9 * e / 89 for e in range(90)])
    assert strengths[90:] == [0.0] * 90


def test_the_gate_closes_evenly_from_1_to_0() -> None:
    strengths = _strengths(GhostSkips(schedule="linear"))
    assert strengths[:90] == pytest.approx([1 - e / 90 for e in range(90)])
    assert strengths[90:] == [0.0] * 90


def test_a_cubic_gate_is_open_an_eighth_half_way() -> None:
    strengths = _strengths(GhostSkips(schedule="cubic"))
    assert strengths[:90] == pytest.approx([(1 - e / 90) ** 3 for e in range(90)])
    assert strengths[45] == 0.125
    assert strengths[90:] == [0.0] * 90


@pytest.mark.parametrize(
    "tweak", [GhostNeurons(until=0.3), GhostSkips(until=0.3)], ids=["neurons", "skips"]
)
@pytest.mark.parametrize("epochs", [1, 2, 3, 10])
def test_short_schedules_fade_and_end(tweak: Tweak, epochs: int) -> None:
    strengths, end = _strengths(tweak, epochs), tweak.plain_from(epochs)
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[:end][:1] == [1.0] * min(end, 1)
    assert all(strengths[:end])
    assert not any(strengths[end:])


def test_a_geometric_beta_grows_by_the_same_factor() -> None:
    betas = [1 / s for s in _strengths(GhostNeurons(schedule="geometric"))[:90]]
    assert (betas[0], betas[-1]) == (1, pytest.approx(10))
    factors = [late / early for early, late in pairwise(betas)]
    assert factors == pytest.approx([10 ** (1 / 89)] * 89, rel=1e-5)


def test_a_cosine_gate_is_half_open_half_way() -> None:
    strengths = _strengths(GhostSkips(schedule="cosine"))
    assert strengths[:90] == pytest.approx([math.cos(math.pi * e / 180) ** 2 for e in range(90)])
    assert strengths[45] == 0.5


def test_a_step_shuts_the_gate_at_once() -> None:
    assert _strengths(GhostSkips(schedule="step")) == [1.0] * 90 + [0.0] * 90


@pytest.mark.parametrize("kind", [GhostNeurons, GhostSkips])
def test_ghosts_without_a_schedule_stay(kind: type[GhostNeurons] | type[GhostSkips]) -> None:
    tweak = kind(schedule="none")
    assert set(_strengths(tweak)) == {1.0}
    assert tweak.plain_from(EPOCHS) == 0


FADING = [
    *(GhostNeurons(schedule=s) for s in ("linear", "geometric")),
    *(GhostSkips(schedule=s) for s in ("linear", "cosine", "cubic", "step")),
]


@pytest.mark.parametrize("tweak", FADING, ids=lambda t: f"{type(t).__name__}-{t.schedule}")
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 40])
def test_every_schedule_starts_whole_falls_and_is_over_before_the_end(
    tweak: GhostNeurons | GhostSkips, epochs: int
) -> None:
    strengths, end = _strengths(tweak, epochs), tweak.plain_from(epochs)
    assert end == min(round(epochs / 2), epochs - 1)
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[:end][:1] == [1.0] * min(end, 1)
    assert all(strengths[:end])
    assert strengths[end:] == [0.0] * (epochs - end)
    if tweak.schedule != "step":
        assert len(set(strengths[:end])) == end


def test_another_last_beta() -> None:
    assert 1 / _strengths(GhostNeurons(last_beta=4.0))[89] == pytest.approx(4)


@pytest.mark.parametrize(
    "tweak",
    [GhostNeurons(), *(GhostSkips(k, schedule="linear") for k in ("identity", "conv1x1_bn"))],
    ids=str,
)
def test_a_net_whose_ghosts_are_over_is_the_plain_net(tweak: Tweak) -> None:
    plain, ghosts = build("resnet18", width=4, channels=1).eval(), _net(tweak).eval()
    state = ghosts.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    tweak.update(ghosts, 89, EPOCHS)
    assert not torch.equal(ghosts(_images()), plain(_images()))
    tweak.update(ghosts, 90, EPOCHS)
    assert torch.equal(ghosts(_images()), plain(_images()))


@pytest.mark.parametrize("name", MODELS)
def test_every_net_is_plain_after_the_last_ghost_epoch_of_every_kind(name: str) -> None:
    torch.manual_seed(0)
    plain = build(name, width=2, channels=1, size=8).train()
    state = {n: t.clone() for n, t in plain.state_dict().items()}
    expected = plain(_images())
    for kind in SKIPS:
        if kind == "conv1x1_bn":  # it has parameters
            continue
        tweaks = (GhostNeurons(), GhostSkips(kind))
        options = tweaks[0].options() | tweaks[1].options()
        net = build(name, width=2, channels=1, size=8, **options).train()
        assert [n for n, _ in net.named_parameters()] == [n for n, _ in plain.named_parameters()]
        for epoch, same in ((9, False), (10, True)):
            net.load_state_dict(net.state_dict() | state)
            for tweak in tweaks:
                tweak.update(net, epoch, 20)
            assert torch.equal(net(_images()), expected) == same
        after = net.state_dict()
        assert all(torch.equal(after[n], t) for n, t in plain.state_dict().items())


def test_the_kind_of_a_skip_reaches_the_net() -> None:
    net = _net(GhostSkips("identity_rms"))
    assert {m.kind for m in net.modules() if isinstance(m, GhostSkip)} == {"identity_rms"}


# groups


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("tost", ["ghost_neurons", "ghost_skips", "rescale", "smoothing"]),
        ("at", ["ghost_neurons", "ghost_skips"]),
        ("trt", ["rescale", "smoothing"]),
        ("at+trt", ["ghost_neurons", "ghost_skips", "rescale", "smoothing"]),
    ],
)
def test_a_group_stands_for_its_tweaks(group: str, names: list[str]) -> None:
    tweaks = Run.of({"tweaks": [group]}).tweaks
    assert list(tweaks) == names == list(GROUPS[group])
    assert tweaks == {name: TWEAKS[name](**GROUPS[group][name]) for name in names}
    stay = {t.schedule for t in tweaks.values() if isinstance(t, GhostNeurons | GhostSkips)}
    assert stay == (
        {"none"} if group.startswith("at") else {"linear", "cubic"} if group == "tost" else set()
    )
    assert max(t.plain_from(EPOCHS) for t in tweaks.values()) == (90 if group == "tost" else 0)


def test_groups_and_tweaks_go_together_in_a_list() -> None:
    assert list(expand_groups(["distillation", "at"])) == [
        "distillation",
        "ghost_neurons",
        "ghost_skips",
    ]
    assert expand_groups(["at", "trt"]) == expand_groups(["at+trt"])
    assert expand_groups([]) == {}
    assert not set(GROUPS) & set(TWEAKS)


@pytest.mark.parametrize(
    ("asked", "meant"), [("tots", "tost"), ("at+tr", "at+trt"), ("rescael", "rescale")]
)
def test_an_unknown_group_is_refused_with_the_nearest(asked: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        Run.of({"tweaks": ["smoothing", asked]})
    assert f"unknown tweak '{asked}'; did you mean '{meant}'?" in str(error.value)


@pytest.mark.parametrize("group", ["tost", "trt"])
def test_a_group_is_the_same_run_as_its_parts(group: str) -> None:
    one, parts = (Run.of({"tweaks": tweaks}) for tweaks in ([group], list(GROUPS[group])))
    assert one == parts
    assert list(one.tweaks) == list(parts.tweaks)
    assert one.id == parts.id
    assert Run.of(one.table()).id == one.id


def test_every_group_is_a_run_of_its_own() -> None:
    assert len({Run.of({"tweaks": [group]}).id for group in GROUPS}) == len(GROUPS)


# smoothing


@pytest.mark.parametrize(("classes", "entropy"), [(10, 0.500288), (100, 0.777797), (200, 0.850667)])
def test_the_smallest_smoothed_loss_is_the_entropy_of_the_labels(
    classes: int, entropy: float
) -> None:
    logits = torch.zeros(1, classes, dtype=torch.float64)
    logits[0, 3] = _gap(classes, 0.1)
    logits.requires_grad_()
    loss = Smoothing().loss(F.cross_entropy, 0, EPOCHS)(logits, torch.tensor([3]))
    (slope,) = torch.autograd.grad(loss, logits)
    labels = torch.full((classes,), 0.1 / classes, dtype=torch.float64)
    labels[3] += 0.9
    assert loss.item() == pytest.approx(entropy, abs=5e-7)
    assert loss.item() == pytest.approx(-(labels * labels.log()).sum().item(), rel=1e-12)
    assert slope.abs().max() < 1e-13


@given(st.floats(0, 1, exclude_max=True), st.integers(2, 7), st.integers(0, 1000))
def test_smoothing_is_cross_entropy_with_soft_labels(alpha: float, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, dtype=torch.float64, generator=generator)
    truth = torch.randint(0, classes, (5,), generator=generator)
    soft = (1 - alpha) * F.one_hot(truth, classes) + alpha / classes
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    loss = Smoothing(alpha).loss(F.cross_entropy, 0, EPOCHS)
    assert torch.allclose(loss(logits, truth), expected)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_an_alpha_that_cannot_be_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha .*: need a number in \[0, 1\)"):
        Smoothing(alpha)


@pytest.mark.parametrize("fade", [-0.1, 1.1, float("nan")])
def test_a_fade_that_cannot_be_is_refused(fade: float) -> None:
    with pytest.raises(ValueError, match=r"decay_until .*: need a share of the training, 0 to 1"):
        Smoothing(decay_until=fade)


@pytest.mark.parametrize(("fade", "end"), [(0.5, 90), (0.25, 45), (1.0, 180)])
def test_alpha_falls_evenly_to_0_and_then_the_loss_is_the_plain_one(fade: float, end: int) -> None:
    smoothing = Smoothing(alpha=0.4, decay_until=fade)
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = torch.arange(5)
    losses = [smoothing.loss(F.cross_entropy, epoch, EPOCHS) for epoch in range(EPOCHS)]
    for epoch, loss in enumerate(losses[:end]):
        alpha = 0.4 * (1 - epoch / end)
        soft = (1 - alpha) * F.one_hot(truth, 7).double() + alpha / 7
        expected = -(soft * logits.log_softmax(1)).sum(1).mean()
        assert loss(logits, truth).item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(loss is F.cross_entropy for loss in losses[end:])


def test_without_a_fade_alpha_stays() -> None:
    assert {Smoothing().strength(epoch, EPOCHS) for epoch in range(EPOCHS)} == {0.1}


@pytest.mark.parametrize("fade", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_fades_start_at_alpha_and_fall(fade: float, epochs: int) -> None:
    strengths = [Smoothing(decay_until=fade).strength(epoch, epochs) for epoch in range(epochs + 1)]
    assert strengths[0] == 0.1
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[-1] == 0


def test_no_smoothing_is_the_plain_loss() -> None:
    assert Smoothing(alpha=0).loss(F.cross_entropy, 0, EPOCHS) is F.cross_entropy
