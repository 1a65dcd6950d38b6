"""What the diagnosis makes of signals that are given: each one's own figures, on its own tokens."""

from types import SimpleNamespace

import pytest
import torch

from actfocus.config import FocusConfig
from actfocus.diagnosis.diagnose import _gradient, correlate
from actfocus.diagnosis.request import Request
from actfocus.diagnosis.signals import SIGNALS
from actfocus.focus import token_weights
from actfocus.report.progress import SilentProgress
from tests import oracle
from tests.small import small_batch, small_model
from tests.training.test_gradients import explicit


@pytest.fixture
def batch():
    return small_batch()


@pytest.fixture
def signals(batch):
    draw = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch.roles_BT.shape, generator=draw).double() * batch.sampled_BT
        for name in SIGNALS
    }


def test_every_signal_has_its_own_table_and_correlation(batch, signals):
    tables, correlations = correlate(batch, signals)
    for name in SIGNALS:
        expected = oracle.group_table(signals[name], batch.roles_BT, batch.returns_B, batch.groups_B)
        for scope in ("all", "reasoning", "action"):
            table = tables[name][scope]
            assert table.means == pytest.approx([line[scope] for line in expected], rel=1e-12)
            assert table.variances == pytest.approx([line["variance"] for line in expected])
            rho = oracle.spearman(table.variances, table.means)
            assert correlations[name][scope].rho == pytest.approx(rho)


@pytest.mark.parametrize("name", SIGNALS)
def test_the_gradient_is_weighted_by_the_signal_that_was_asked_for(batch, signals, name):
    model, focus = small_model(), FocusConfig(alpha=0.2, beta=3.0, signal=name)
    subject = SimpleNamespace(focus=focus, agent=SimpleNamespace(policy=model))
    found = _gradient(Request(), subject, batch, signals, SilentProgress())
    assert found["focus"] == focus.model_dump(mode="json")

    def by_hand(signal):
        return explicit(model, batch, token_weights(batch.roles_BT, signal, alpha=0.2, beta=3.0))

    right, others = by_hand(signals[name]), [signals[name].roll(1, 1)]
    others += [signal for other, signal in signals.items() if other != name]
    for (when, role), figures in right.items():
        assert found[when][role]["total"] == pytest.approx(figures["total"], rel=1e-6), (when, role)
    for signal in others:
        wrong = by_hand(signal)["after", "action"]["total"]
        assert found["after"]["action"]["total"] != pytest.approx(wrong, rel=1e-3)
