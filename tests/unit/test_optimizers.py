"""Optimizers by name, and learning rates as a function of the step."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from pipeline import storage
from pipeline.config.training import OptimizerConfig, ScheduleConfig
from pipeline.errors import ConfigError
from pipeline.training.optimizer_state import load_optimizer_state, optimizer_state
from pipeline.training.optimizers import build_optimizer, optimizer_step, without_compiler
from pipeline.training.schedules import learning_rate_factor


def _parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Rprop", "Adafactor"])
def test_an_optimizer_goes_on_from_its_saved_state_to_the_same_bits(name: str) -> None:
    through, broken = _parameter(), _parameter()
    config = OptimizerConfig(name=name, learning_rate=0.1, options={"momentum": 0.9} if name == "SGD" else {})
    optimizers = [build_optimizer(config, [parameter]) for parameter in (through, broken)]
    for step in range(6):
        if step == 3:
            tensors, rest = optimizer_state(optimizers[1])
            optimizers[1] = build_optimizer(config, [broken])
            load_optimizer_state(optimizers[1], {n: t.clone() for n, t in tensors.items()}, rest)
        for parameter, optimizer in zip((through, broken), optimizers, strict=True):
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer_step(optimizer)
    assert torch.equal(through, broken)


def test_an_option_without_bound_survives_a_state_in_json() -> None:
    optimizer = build_optimizer(OptimizerConfig(name="SGD"), [_parameter()])
    optimizer.param_groups[0]["bound"] = math.inf
    tensors, rest = optimizer_state(optimizer)
    optimizer.param_groups[0]["lr"] = 7.0
    load_optimizer_state(optimizer, tensors, storage.parse_json("state", storage.format_json("a", 1, rest), "a", 1))
    assert (optimizer.param_groups[0]["bound"], optimizer.param_groups[0]["lr"]) == (math.inf, 1e-3)


def test_a_step_is_the_algorithms_step() -> None:
    parameter = _parameter()
    start = parameter.detach().clone()
    optimizer = build_optimizer(OptimizerConfig(name="AdamW", learning_rate=0.1, weight_decay=0.5), [parameter])
    parameter.grad = torch.full_like(parameter, 7.0)
    optimizer_step(optimizer)
    assert torch.allclose(parameter, start * (1 - 0.1 * 0.5) - 0.1), "Adam's first step is the learning rate"


def test_no_rank_pays_for_the_compiler() -> None:
    program = (
        "import sys, torch\n"
        "from pipeline.config.training import OptimizerConfig\n"
        "from pipeline.training.optimizers import build_optimizer, optimizer_step\n"
        "from pipeline.training.randomness import torch_left_as_found\n"
        "p = torch.nn.Parameter(torch.ones(2)); p.grad = torch.ones(2)\n"
        "with torch_left_as_found(1): optimizer_step(build_optimizer(OptimizerConfig(name='AdamW'), [p]))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Inherited(torch.optim.SGD):
    """Has torch's step."""


class Overridden(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def Scheduled(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """A scheduler of torch wraps the step, to see it called."""
    optimizer = torch.optim.SGD(parameters, lr)
    optimizer.kept_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # type: ignore[attr-defined]
    return optimizer


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, Inherited, Overridden, Scheduled])
def test_hooks_of_an_optimizer_run_around_its_step(kind: Any) -> None:
    parameter = _parameter()
    start, called = parameter.detach().clone(), []
    with without_compiler():
        optimizer = kind([parameter], lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: called.append(("before", torch.equal(parameter, start))))
    optimizer.register_step_post_hook(lambda *_: called.append(("after", torch.equal(parameter, start))))
    parameter.grad = torch.ones_like(parameter)
    optimizer_step(optimizer)
    assert (called[0], called[-1]) == (("before", True), ("after", False))


def test_a_scheduler_of_torch_sees_the_step(recwarn: pytest.WarningsRecorder) -> None:
    parameter = _parameter()
    optimizer: Any = Scheduled([parameter], 0.1)
    parameter.grad = torch.ones_like(parameter)
    optimizer_step(optimizer)
    optimizer.kept_scheduler.step()
    assert [str(warning.message) for warning in recwarn if "optimizer.step()" in str(warning.message)] == []


def test_an_unknown_optimizer_and_an_unknown_option_are_named() -> None:
    with pytest.raises(ConfigError, match=r"Lion; expected one of .*AdamW"):
        build_optimizer(OptimizerConfig(name="Lion"), [_parameter()])
    with pytest.raises(ConfigError, match="lerning"):
        build_optimizer(OptimizerConfig(name="SGD", options={"lerning": 1}), [_parameter()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"differentiable": True}, "the optimizer is differentiable.*expected false"),
        ({"foreach": True, "fused": True}, "options are not understood by Adam: `fused` and `foreach` cannot be"),
    ],
)
def test_options_that_torch_refuses_in_its_own_way_are_errors_of_the_configuration(
    options: dict[str, bool], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(OptimizerConfig(options=options), [_parameter()])


def test_weight_decay_is_what_the_configuration_says_even_if_that_is_none() -> None:
    optimizer = build_optimizer(OptimizerConfig(name="AdamW"), [_parameter()])
    assert optimizer.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("name", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1]),
        ("constant", 0.4, [1 / 3, 2 / 3, 1, 1, 1]),
        ("cosine", 0.0, [1.0, 0.904508, 0.654508, 0.345492, 0.095492]),
    ],
)
def test_schedules_are_functions_of_the_step(name: str, warmup: float, expected: list[float]) -> None:
    config = ScheduleConfig(name=name, warmup_fraction=warmup)  # type: ignore[arg-type]
    assert [learning_rate_factor(config, step, 5) for step in range(5)] == pytest.approx(expected, abs=1e-6)


def test_cosine_would_reach_zero_one_step_after_the_last() -> None:
    factors = [learning_rate_factor(ScheduleConfig(name="cosine"), step, 10) for step in range(11)]
    assert factors == sorted(factors, reverse=True)
    assert factors[9] == pytest.approx(0.0245, abs=1e-4)
    assert factors[10] == pytest.approx(0.0, abs=1e-12)


def test_one_cycle_rises_to_the_rate_and_falls_to_nearly_nothing() -> None:
    factors = [learning_rate_factor(ScheduleConfig(name="one_cycle"), step, 101) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[30] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(1 / 25e4)
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_an_optimizer_that_wants_a_closure_is_refused_by_name_and_from_code() -> None:
    for config, own in ((OptimizerConfig(name="LBFGS"), None), (OptimizerConfig(), torch.optim.LBFGS)):
        with pytest.raises(ConfigError, match=r"LBFGS, which evaluates the loss several times in a step \(closure\)"):
            build_optimizer(config, [_parameter()], own)
