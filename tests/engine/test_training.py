from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from banks import launched
from lightning.fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import nn

from hsiaug.engine import Average, Run, Training
from hsiaug.engine.checkpoint import found_checkpoint
from hsiaug.engine.interrupts import between_steps
from hsiaug.engine.schedules import Cosine, OneCycle, Polynomial, Staircase, WarmUp
from hsiaug.engine.training import CHECK_EVERY, PATIENCE


class Counting(Training):
    """Does nothing but to report losses of its own."""

    def __init__(self, verdict: float, steps: int) -> None:
        super().__init__('counting', {'net': nn.Linear(1, 1)}, {}, steps, 0, torch.device('cpu'))
        self.verdict, self.draws = verdict, list[float]()

    def update(self, rng: torch.Generator) -> None:
        self.draws.append(float(torch.rand((), generator=rng)))
        self.losses = {'discriminator': torch.tensor(self.verdict)}


class Regression(Training):
    """Fits a line to a random batch with momentum."""

    def __init__(self, steps: int = 30, lr: float = 0.05, batch_size: int = 8, schedule: Cosine | None = None) -> None:
        net = nn.Linear(3, 1)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(0.5)
        optimiser = torch.optim.Adam(net.parameters(), lr=lr)
        self.average = Average(net, 0.9)
        modules = {'net': net, 'average': self.average.module}
        super().__init__('line', modules, {'net': optimiser}, steps, 3, torch.device('cpu'), schedule or Cosine(5))
        self.net, self.batch_size = net, batch_size
        self.interrupt_at: int | None = None

    def update(self, rng: torch.Generator) -> None:
        x = self.share(torch.randn((self.batch_size, 3), generator=rng))
        loss = (self.net(x)[:, 0] - x.sum(dim=1)).square().mean()
        self.descend('net', loss, clip=1.0)
        self.losses = {'loss': loss.detach()}
        if self.step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def after_step(self) -> None:
        self.average.follow(self.step)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {f'{k}.{n}': v for k, m in training.modules.items() for n, v in m.state_dict().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


def test_collapse_of_a_discriminator_is_reported_once() -> None:
    with pytest.warns(UserWarning, match='hardly ever wrong') as caught:
        Counting(1e-4, (PATIENCE + 4) * CHECK_EVERY).run(Run())
    assert len(caught) == 1


@pytest.mark.filterwarnings('error')
def test_honest_discriminators_and_short_runs_pass() -> None:
    Counting(0.5, (PATIENCE + 4) * CHECK_EVERY).run(Run())
    Counting(1e-4, (PATIENCE - 1) * CHECK_EVERY).run(Run())


def test_each_step_has_a_stream_of_its_own() -> None:
    training = Counting(0.5, 40)
    training.run(Run())
    assert len(set(training.draws)) == 40
    later = Counting(0.5, 40)
    later.step = 25
    later.run(Run())
    assert later.draws == training.draws[25:]


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / 'training.safetensors'
    file.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='truncated or no checkpoint'):
        found_checkpoint(file)
    save_file({'a': torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="lacks \\['identity', 'stage', 'step'\\]"):
        found_checkpoint(file)


@pytest.mark.parametrize('at', [0, 11, 28])
def test_a_termination_request_waits_for_the_step_and_the_run_resumes_to_the_same_bits(tmp_path: Path, at: int) -> None:
    whole = Regression()
    whole.run(Run())
    file, before = tmp_path / 'line.safetensors', signal.getsignal(signal.SIGTERM)
    torn = Regression()
    torn.interrupt_at = at
    with pytest.raises(KeyboardInterrupt):
        torn.run(Run(), file, {'a': 1})
    assert signal.getsignal(signal.SIGTERM) is before
    assert found_checkpoint(file, {'a': 1})['step'] == str(at + 1)
    resumed = Regression()
    resumed.load(file)
    resumed.run(Run(), file, {'a': 1})
    assert_equal(weights(resumed), weights(whole))


def test_a_checkpoint_does_not_bring_back_the_rate_that_diverged(tmp_path: Path) -> None:
    file = tmp_path / 'line.safetensors'
    first = Regression(steps=10, lr=0.05)
    first.run(Run(every=5), file, {})
    second = Regression(steps=20, lr=0.01)
    second.load(file)
    factor = Cosine(5)(second.step, 20)
    second.advance(torch.Generator())
    (group,) = second.optimisers['net'].param_groups
    assert group['lr'] == pytest.approx(0.01 * factor)


def test_divergence_is_an_error_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    file = tmp_path / 'line.safetensors'
    training = Regression(steps=CHECK_EVERY * 2)
    training.steps = 10
    training.run(Run(every=10), file, {})
    training.steps = CHECK_EVERY * 2
    training.rates['net'] = [float('nan')]
    with pytest.raises(FloatingPointError, match=r"diverged in stage 'line' by step \d+: .* \(step 10\)"):
        training.run(Run(every=10), file, {})
    assert found_checkpoint(file)['step'] == '10'


def test_schedules_by_hand() -> None:
    assert [WarmUp(4)(step, 100) for step in (0, 3, 50)] == [0.25, 1.0, 1.0]
    assert Cosine()(0, 10) == 1.0
    assert Cosine()(5, 10) == pytest.approx(0.5)
    assert Cosine(20)(9, 1000) == pytest.approx(0.5, rel=1e-3)
    assert [Staircase(0.5)(step, 100) for step in (0, 24, 25, 99)] == [1.0, 1.0, 0.5, 0.125]
    assert Polynomial(0.1, 2.0)(50, 100) == pytest.approx(0.25)
    assert Polynomial(0.1, 1.0)(0, 100) == pytest.approx(0.1)


@pytest.mark.parametrize('steps', [1, 2, 7, 100, 300])
def test_schedules_are_those_of_torch(steps: int) -> None:
    net = nn.Linear(1, 1)
    ours, theirs = (torch.optim.AdamW(net.parameters(), lr=0.3) for _ in range(2))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(ours, steps)
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.3, total_steps=steps)
    for step in range(steps):
        assert cosine.get_last_lr()[0] == pytest.approx(0.3 * Cosine()(step, steps), rel=1e-9)
        assert cycle.get_last_lr()[0] == pytest.approx(0.3 * OneCycle()(step, steps), rel=1e-9)
        momentum = OneCycle().between(0.95, 0.85, 0.95, step, steps)
        assert theirs.param_groups[0]['betas'][0] == pytest.approx(momentum, rel=1e-12)
        if step < steps - 1:
            ours.step(), theirs.step(), cosine.step(), cycle.step()


def test_average_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = Average(net, 0.5)
    nn.init.ones_(net.weight)
    average.follow(0)  # decay 1/10
    assert float(average.module.weight) == pytest.approx(0.9)
    average.follow(100)  # decay 0.5
    assert float(average.module.weight) == pytest.approx(0.95)
    assert not any(p.requires_grad for p in average.module.parameters())


@pytest.mark.parametrize('wrong', [{'devices': 0}, {'every': 0}, {'nodes': True}, {'every': 2.5}])
def test_impossible_runs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Run(**wrong)  # type: ignore[arg-type]


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path) -> None:
    def train(fabric: Fabric) -> None:
        run = Run(devices=2)
        with run.launched():
            training = Regression()
            training.run(run)
        save_file(weights(training), tmp_path / f'rank{fabric.global_rank}.safetensors')

    launched(train)
    first, second = (load_file(tmp_path / f'rank{rank}.safetensors') for rank in range(2))
    assert_equal(first, second)
    alone = Regression()
    alone.run(Run())
    for key, value in weights(alone).items():
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-5)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hsiaug.engine.training.world', lambda: (0, 3))
    with pytest.raises(ValueError, match='batch of 8 cannot be shared by 3 processes'):
        Regression().share(torch.zeros(8, 3))


def test_what_is_ignored_stays_ignored_and_a_fork_ends_as_its_parent_wants() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with between_steps() as request:
            os.kill(os.getpid(), signal.SIGINT)
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
            assert not request.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_hidden_bar_is_none_and_a_shown_one_tells_the_losses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Regression(steps=CHECK_EVERY).run(Run(progress=True))
    assert re.search(r'line: .*loss=\d\.\d{4}', capsys.readouterr().err)
    monkeypatch.setattr('hsiaug.progress.tqdm', None)  # even a disabled one takes a lock
    Regression().run(Run())


def test_matrix_products_of_lower_precision_end_with_the_training() -> None:
    found = []

    class Watched(Counting):
        def update(self, rng: torch.Generator) -> None:
            super().update(rng)
            found.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled('cpu')))
            with self.mixed():
                found.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled('cpu')))

    before = torch.get_float32_matmul_precision()
    for precision in ('32', 'tf32', 'bf16'):
        training = Watched(1.0, 1)
        training.precision = precision  # type: ignore[assignment]
        training.run(Run())
        assert torch.get_float32_matmul_precision() == before
    assert found == [(before, False)] * 2 + [('high', False)] * 2 + [(before, False), (before, True)]


def test_a_folder_that_cannot_be_written_to_is_named_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').touch()
    training = Regression()
    with pytest.raises(
        OSError, match=r'no checkpoint can be kept in .*/file/run: .*/file is a file; give another folder'
    ):
        training.complete(Run(folder=tmp_path / 'file' / 'run'), 'a.safetensors', {})
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path) != tmp_path)  # as on a read-only disk, for root too
    with pytest.raises(OSError, match=f'{tmp_path} cannot be written to'):
        training.complete(Run(folder=tmp_path / 'new' / 'run'), 'a.safetensors', {})
    assert training.step == 0
