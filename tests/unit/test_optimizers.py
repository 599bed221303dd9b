"""Optimizers: rounding, moments of few bits, weight decay, saving, and shards against one process."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alpaca import config
from alpaca.checks.training import optimizer_problems
from alpaca.errors import UserError
from alpaca.runtime.distributed import launch_ranks
from alpaca.stages.train import blockwise, optim, schedule
from alpaca.stages.train.adamw import AdamW8bit, LowPrecisionAdamW
from alpaca.stages.train.elementwise import _compiled
from alpaca.stages.train.rounding import stochastically, write
from alpaca.stages.train.sgd import SGD
from tests.unit import optimizer_world as world

KINDS: dict[str, config.Optimizer] = {
    "adamw": config.AdamW(),
    "adamw8bit": config.AdamW8bit(),
    "muon": config.Muon(),
    "adafactor": config.Adafactor(),
    "sgd": config.SGD(),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def train(module: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int) -> list[float]:
    return [world.step(module, optimizers, step) for step in range(steps)]


# --- rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1.001, -3.1415927, 2e-5, 1e-30, 0.9999])
def test_stochastic_rounding_keeps_the_mean(number: float) -> None:
    torch.manual_seed(0)
    source = torch.full((100_000,), number)
    rounded = stochastically(source)
    assert torch.equal(rounded, rounded.to(torch.bfloat16).float())
    low, high = rounded.unique().tolist()
    assert low < source[0].item() < high
    deviation = rounded.double().std().item() / 100_000**0.5
    assert abs(rounded.double().mean().item() - source[0].item()) <= 4 * deviation
    nearest = source[:1].to(torch.bfloat16).double().item()
    assert abs(nearest - source[0].item()) > 4 * deviation  # so nearest rounding would not have passed


def test_numbers_that_bf16_has_and_what_is_no_number_stay_as_they_are() -> None:
    torch.manual_seed(0)
    exact = torch.tensor([0.0, -0.0, 1.0, -2.5, 3.0e38, torch.inf, -torch.inf]).to(torch.bfloat16).float()
    for _ in range(50):
        assert torch.equal(stochastically(exact).view(torch.int32), exact.view(torch.int32))
    ones = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)  # NaN as GPUs make it
    assert all(stochastically(ones).isnan().all() for _ in range(50))


def test_only_bf16_is_rounded_and_only_where_asked() -> None:
    torch.manual_seed(0)
    source = torch.full((1000,), 1.001)
    wide, nearest, stochastic = torch.empty(1000), *(torch.empty(1000, dtype=torch.bfloat16) for _ in range(2))
    write(wide, source, stochastic=True)
    write(nearest, source, stochastic=False)
    write(stochastic, source, stochastic=True)
    assert torch.equal(wide, source)
    assert torch.equal(nearest, source.to(torch.bfloat16))
    assert len(stochastic.unique()) == 2


# --- AdamW of few bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.9)])
def test_in_fp32_throughout_it_is_torchs_adamw(betas: tuple[float, float]) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "betas": betas, "eps": 1e-6, "weight_decay": 0.1}
    ours, theirs = world.perceptron(), world.perceptron()
    train(ours, [LowPrecisionAdamW(ours.parameters(), **options)], 20)
    train(theirs, [torch.optim.AdamW(theirs.parameters(), **options)], 20)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    assert not torch.equal(next(iter(ours.parameters())), next(iter(world.perceptron().parameters())))


def moved_by(module: nn.Module, optimizer: torch.optim.Optimizer, target: torch.Tensor) -> torch.Tensor:
    """Where 100 steps toward target bring the module's weights, in fp32."""
    (weight,) = module.parameters()
    for _ in range(100):
        weight.grad = (weight - target).detach().to(weight.dtype)
        optimizer.step()
    return weight.detach().float()


def test_at_the_papers_rate_nearest_rounding_loses_the_updates_and_stochastic_rounding_follows_fp32() -> None:
    torch.manual_seed(0)
    start = torch.randn(20_000).mul(0.02).to(torch.bfloat16)
    target = start.float() + torch.where(torch.rand(20_000) < 0.5, 1.0, -1.0)
    results = {}
    for name, states, stochastic in (
        ("nearest", torch.bfloat16, False),
        ("stochastic", torch.bfloat16, True),
        ("wide states", torch.float32, True),
    ):
        module = nn.ParameterList([nn.Parameter(start.clone())])
        optimizer = LowPrecisionAdamW(module.parameters(), lr=2e-5, states=states, stochastic=stochastic)
        results[name] = moved_by(module, optimizer, target) - start.float()
    module = nn.ParameterList([nn.Parameter(start.float())])
    exact = moved_by(module, torch.optim.AdamW(module.parameters(), lr=2e-5, weight_decay=0), target) - start.float()
    assert (results["nearest"] == 0).float().mean() > 0.5
    wanted = exact.sign()
    for name in ("stochastic", "wide states"):
        assert (results[name] * wanted).mean().item() == pytest.approx((exact * wanted).mean().item(), rel=0.02)
    assert (results["nearest"] * wanted).mean() < 0.7 * (exact * wanted).mean()


def test_states_in_bf16_under_weights_in_fp32_stay_near_those_in_fp32() -> None:
    torch.manual_seed(0)
    ours, theirs = world.perceptron(), world.perceptron()
    low = LowPrecisionAdamW(ours.parameters(), lr=1e-2, states=torch.bfloat16, stochastic=True)
    mine = train(ours, [low], 60)
    other = train(theirs, [torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0)], 60)
    assert {state["exp_avg_sq"].dtype for state in low.state.values()} == {torch.bfloat16}
    assert mine[-1] == pytest.approx(other[-1], rel=0.05)
    assert other[-1] < 0.3 * other[0]


# --- eight bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signed", "bound"), [(True, 0.9 / 128), (False, 0.9 / 256)])
def test_a_code_is_the_nearest_of_256_and_the_error_is_bounded(signed: bool, bound: float) -> None:
    table = blockwise.tables(torch.device("cpu"))[0 if signed else 1]
    assert (len(table.entries.unique()), len(table.borders)) == (256, 255)
    numbers = torch.randn(40, 256, generator=torch.Generator().manual_seed(0))
    numbers = torch.cat([numbers, numbers**5, numbers * 1e-20])
    numbers = numbers if signed else numbers.abs()
    codes, scales = blockwise.quantise(numbers, table)
    again = blockwise.dequantise(codes, scales, table)
    assert torch.equal(scales, numbers.abs().amax(1))
    assert ((again - numbers).abs() / scales[:, None]).max() <= bound * (1 + 1e-5)
    relative = numbers / scales[:, None]
    nearest = (relative[..., None] - table.entries).abs().amin(-1)
    chosen = (relative - table.entries[codes.int()]).abs()
    floor = 0.0 if signed else table.entries[1].item()  # unsigned, nothing but zero becomes zero
    assert (chosen <= nearest + 1e-7).logical_or(relative < floor).all()


def test_small_numbers_keep_their_relative_precision_and_none_becomes_zero_as_second_moment() -> None:
    signed, unsigned = blockwise.tables(torch.device("cpu"))
    numbers = torch.cat([torch.ones(1), torch.logspace(-4, -0.01, 255)])[None]
    for table, within in ((signed, 0.35), (unsigned, 0.2)):
        again = blockwise.dequantise(*blockwise.quantise(numbers, table), table)
        assert ((again - numbers).abs() / numbers).max() < within
    tiny = torch.tensor([[1.0, 1e-12, 0.0]])
    again = blockwise.dequantise(*blockwise.quantise(tiny, unsigned), unsigned)
    assert again[0, 1] > 0 == again[0, 2]


def test_a_block_of_zeros_stays_zero_and_does_not_touch_its_neighbours() -> None:
    table = blockwise.tables(torch.device("cpu"))[0]
    numbers = torch.tensor([[0.0, 0.0], [3.0, -1.5]])
    codes, scales = blockwise.quantise(numbers, table)
    assert scales.tolist() == [0.0, 3.0]
    again = blockwise.dequantise(codes, scales, table)
    assert torch.equal(again[0], numbers[0])
    assert again[1, 0] == 3.0


@pytest.mark.parametrize("columns", [64, 70, 3])
def test_blocks_lie_within_rows_whatever_their_length(columns: int) -> None:
    tensor = torch.arange(5.0 * columns).view(5, columns)
    blocked = blockwise.blocks(tensor, 32)
    assert blockwise.scales_like(tensor, 32).shape == (5, -(-columns // 32)) == (5, len(blocked) // 5)
    blocked.add_(1)
    target = tensor if columns == 64 else tensor.clone()
    blockwise.unblock(target, blocked)
    assert torch.equal(target, torch.arange(5.0 * columns).view(5, columns) + 1)


def test_eight_bits_learn_as_fp32_does() -> None:
    ours, theirs = world.perceptron(), world.perceptron()
    low = AdamW8bit(ours.parameters(), lr=1e-2, block=64)
    mine = train(ours, [low], 100)
    other = train(theirs, [torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0)], 100)
    assert sum(state["exp_avg"].dtype == torch.uint8 for state in low.state.values()) == 2
    assert sum(mine[-20:]) == pytest.approx(sum(other[-20:]), rel=0.05)
    assert mine[:5] == pytest.approx(other[:5], rel=0.01)
    assert other[-1] < 0.2 * other[0]


def test_eight_bits_learn_under_weights_in_bf16_too() -> None:
    torch.manual_seed(0)
    ours, theirs = world.perceptron().to(torch.bfloat16), world.perceptron()
    mine = train(ours, [AdamW8bit(ours.parameters(), lr=1e-3, block=64, stochastic=True)], 150)
    other = train(theirs, [torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0)], 150)
    assert sum(mine[-20:]) == pytest.approx(sum(other[-20:]), rel=0.1)
    assert other[-1] < 0.6 * other[0]


def test_vectors_small_matrices_and_embeddings_keep_states_in_fp32() -> None:
    module = world.llama()
    (optimizer,) = optim.build(module, config.AdamW8bit(block=32))
    train(module, [optimizer], 1)
    formats = {name: optimizer.state[each]["exp_avg"].dtype for name, each in module.named_parameters()}
    narrow = {name for name, each in formats.items() if each == torch.uint8}
    assert narrow == {name for name in formats if "mlp" in name or "q_proj" in name or "o_proj" in name}
    assert {each for name, each in formats.items() if name not in narrow} == {torch.float32}
    assert module.model.layers[0].self_attn.k_proj.weight.numel() < 4096


# --- building ---------------------------------------------------------------------------------------------------------


def decays(module: nn.Module, optimizer: config.Optimizer) -> dict[str, float]:
    """Weight decay per parameter."""
    names = {id(each): name for name, each in module.named_parameters()}
    built = [group for each in optim.build(module, optimizer) for group in each.param_groups]
    found = {names[id(each)]: float(group["weight_decay"]) for group in built for each in group["params"]}
    assert sum(len(group["params"]) for group in built) == len(found) == len(names)
    return found


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "sgd", "adafactor"])
def test_what_no_decay_names_has_none(kind: str) -> None:
    module = world.opt()
    settings = copy.copy(KINDS[kind])
    settings.weight_decay = 0.1
    is_bias = {name for name, _ in module.named_parameters() if name.endswith("bias")}
    is_norm = {name for name, each in module.named_parameters() if each.ndim == 1} - is_bias
    is_outer = {name for name, _ in module.named_parameters() if "embed" in name or "lm_head" in name}
    assert all((is_bias, is_norm, is_outer))
    for no_decay, spared in (
        ([], set()),
        (["bias"], is_bias),
        (["norm"], is_norm),
        (["bias", "norm"], is_bias | is_norm),
        (["embedding"], is_outer),
    ):
        settings.no_decay = no_decay
        assert {name for name, decay in decays(module, settings).items() if decay == 0} == spared
        assert set(decays(module, settings).values()) == ({0.1, 0.0} if spared else {0.1})


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "sgd", "adafactor"])
@pytest.mark.parametrize("precision", [config.Precision(), config.Precision(states="bf16")], ids=["fp32", "bf16"])
def test_decay_takes_rate_times_decay_of_the_weight_at_each_step(kind: str, precision: config.Precision) -> None:
    module = world.perceptron()
    settings = copy.copy(KINDS[kind])
    settings.lr, settings.weight_decay, settings.no_decay = 0.1, 0.5, ["bias"]
    (optimizer,) = optim.build(module, settings, precision)
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    for _ in range(3):
        for each in module.parameters():
            each.grad = torch.zeros_like(each)
        optimizer.step()
    for name, each in module.named_parameters():
        factor = 1.0 if name.endswith("bias") else 0.95**3
        torch.testing.assert_close(each.detach(), before[name] * factor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_schedule_reaches_every_group(kind: str) -> None:
    module = world.opt()
    settings = copy.copy(KINDS[kind])
    settings.weight_decay = 0.1
    optimizers = optim.build(module, settings)
    schedule.set_rates(optimizers, 1.0)
    first = [group["lr"] for each in optimizers for group in each.param_groups]
    assert len(first) == (3 if kind == "adamw8bit" else 2)
    for factor in (0.8, 0.5):
        train(module, optimizers, 1)
        schedule.set_rates(optimizers, factor)
    assert [group["lr"] for each in optimizers for group in each.param_groups] == [rate / 2 for rate in first]


def test_frozen_parameters_are_left_to_themselves() -> None:
    module = world.llama()
    for name, each in module.named_parameters():
        each.requires_grad_("mlp" in name)
    for settings in (config.AdamW(), config.AdamW8bit(), config.SGD()):
        (optimizer,) = optim.build(module, settings)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 3 * world.LAYERS
    assert len(optim.hidden_matrices(module)) == 3 * world.LAYERS


def test_adamw_is_torchs_until_something_is_in_bf16() -> None:
    module = world.llama()
    assert type(optim.build(module, config.AdamW())[0]) is torch.optim.AdamW
    for precision in (config.Precision(states="bf16"), config.Precision(parameters="bf16")):
        (built,) = optim.build(module, config.AdamW(), precision)
        assert isinstance(built, LowPrecisionAdamW)
        assert built.format == (torch.bfloat16 if precision.states == "bf16" else torch.float32)
        assert not built.stochastic
        assert isinstance(optim.build(module, config.Muon(), precision)[1], LowPrecisionAdamW)
    (built,) = optim.build(module, config.AdamW(), world.BF16_SR)
    assert isinstance(built, LowPrecisionAdamW)
    assert built.stochastic


def test_what_cannot_be_built_is_refused() -> None:
    module = world.llama()
    for settings, precision, where in (
        (config.Optimizer(kind="lion"), config.Precision(), "optimizer.kind"),
        (config.AdamW(no_decay=["norm", "head"]), config.Precision(), "optimizer.no_decay"),
        (config.Muon(no_decay=["head"]), config.Precision(), "optimizer.no_decay"),
        (config.Muon(), world.BF16_SR, "precision.rounding"),
        (config.Adafactor(), world.BF16_SR, "precision.rounding"),
        (config.AdamW(eps=0.0), config.Precision(), "optimizer.eps"),
        (config.AdamW8bit(eps=1e-50), config.Precision(), "optimizer.eps"),
        (config.Adafactor(clip_update=0.5), config.Precision(), "optimizer.clip_update"),
        (config.Adafactor(beta2_decay=0.8), config.Precision(), "optimizer.beta2_decay"),
    ):
        with pytest.raises(UserError) as caught:
            optim.build(module, settings, precision)
        assert caught.value.where == where
        assert caught.value.remedy
    assert [problem for each in KINDS.values() for problem in optimizer_problems(each, config.Precision())] == []


def test_sgd_is_torchs_but_for_decay() -> None:
    ours, theirs = world.perceptron(), world.perceptron()
    for momentum in (0.9, 0.0):
        train(ours, [SGD(ours.parameters(), lr=0.01, momentum=momentum)], 10)
        train(theirs, [torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=momentum)], 10)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_sgd_reaches_weights_in_bf16_by_stochastic_rounding() -> None:
    torch.manual_seed(0)
    start = torch.ones(10_000, dtype=torch.bfloat16)
    moved = {}
    for stochastic in (False, True):
        weight = nn.Parameter(start.clone())
        optimizer = SGD([weight], lr=1e-4, momentum=0.0, stochastic=stochastic)
        for _ in range(50):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[stochastic] = (start - weight.detach()).float().mean().item()
    assert moved[False] == 0.0
    assert moved[True] == pytest.approx(50 * 1e-4, rel=0.05)


# --- saving -----------------------------------------------------------------------------------------------------------

PRECISIONS = {
    "fp32": config.Precision(),
    "bf16_states": config.Precision(states="bf16"),
    "bf16_sr": world.BF16_SR,
    "wide_states": config.Precision(parameters="bf16", rounding="stochastic"),
}


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "sgd"])
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_a_loaded_optimizer_goes_on_to_the_bit(kind: str, precision: str, tmp_path: Path) -> None:
    numbers = PRECISIONS[precision]
    module = world.of(numbers)
    optimizers = optim.build(module, KINDS[kind], numbers)
    train(module, optimizers, 2)
    torch.save((module.state_dict(), optimizers[0].state_dict()), tmp_path / "saved.pt")
    other = world.of(numbers)
    others = optim.build(other, KINDS[kind], numbers)
    weights, states = torch.load(tmp_path / "saved.pt", weights_only=True)
    other.load_state_dict(weights)
    others[0].load_state_dict(states)
    for each, one in ((module, optimizers), (other, others)):
        torch.manual_seed(3)
        train(each, one, 2)
    for mine, copied in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, copied)
        first, second = optimizers[0].state[mine], others[0].state[copied]
        assert {name: value.dtype for name, value in first.items()} == {n: v.dtype for n, v in second.items()}
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "sgd"])
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_preparing_the_states_for_saving_moves_no_weight(kind: str, precision: str) -> None:
    module = world.of(PRECISIONS[precision])
    settings = copy.copy(KINDS[kind])
    settings.weight_decay, settings.no_decay = 0.1, []
    before = [each.detach().clone() for each in module.parameters()]
    states = world.saved(module, optim.build(module, settings, PRECISIONS[precision]))
    assert "model.layers.0.mlp.up_proj.weight" in states["state"]
    assert all(torch.equal(one, each) for one, each in zip(before, module.parameters(), strict=True))


# --- kernels and shards -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_compiled_step_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (
        lambda each: LowPrecisionAdamW(each, lr=1e-2, weight_decay=0.1),
        lambda each: AdamW8bit(each, lr=1e-2, block=64),
        lambda each: SGD(each, lr=1e-2),
    ):
        results = []
        for compiled in (False, True):
            module = world.perceptron()
            with monkeypatch.context() as patched:
                if compiled:
                    for place in ("adamw", "sgd"):
                        patched.setattr(f"alpaca.stages.train.{place}.kernel", lambda function, _: _compiled(function))
                train(module, [make(module.parameters())], 5)
            results.append([each.detach() for each in module.parameters()])
        for plain, other in zip(*results, strict=True):
            torch.testing.assert_close(other, plain, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_shards_equal_one_process_and_are_resharded(tmp_path: Path) -> None:
    launch_ranks([sys.executable, world.__file__, str(tmp_path)], 2)
    for name, (settings, precision, within) in world.SHARDED.items():
        module = world.of(precision)
        optimizers = optim.build(module, settings, precision)
        losses = train(module, optimizers, world.STEPS)
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert found["losses"] == pytest.approx(losses, abs=within), name
        assert losses[-1] < losses[0] - 0.1, name
        other = world.of(precision)
        others = optim.build(other, settings, precision)
        world.load(other, others, tmp_path / name)
        assert train(other, others, 3) == pytest.approx(found["after"], abs=within), name
        fresh = world.of(precision)
        fresh.load_state_dict(found["weights"])
        without_states = train(fresh, optim.build(fresh, settings, precision), 3)
        assert without_states != pytest.approx(found["after"], abs=3 * within), name
