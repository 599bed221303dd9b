"""Packing: bins, layouts, shared beginnings, and that none of it changes loss or gradient of any kind of model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AttentionInterface,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alpaca.config import Fsdp, Precision
from alpaca.errors import UserError
from alpaca.runtime.distributed import alone
from alpaca.stages.train import attention, loop, packing, parallel, probe
from alpaca.stages.train.batches import Form, collate, packed
from alpaca.stages.train.packing import Layout, Run
from alpaca.stages.train.tokens import Row

CPU = torch.device("cpu")
VOCABULARY = 97
PREAMBLES = (tuple(range(1, 12)), (1, *range(30, 45)))
"""Two made-up templates, of 11 and 16 tokens, that share their first token."""
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_rows(count: int, seed: int = 0, plain: int = 0) -> list[Row]:
    """Rows of both templates, some of equal length, and `plain` ones that begin otherwise."""
    rng = random.Random(seed)
    rows = []
    for index in range(count + plain):
        head = PREAMBLES[index % 3 == 0] if index < count else (1, 60 + index % 7, 50)
        ids = [*head, *(rng.randrange(45, VOCABULARY) for _ in range(rng.choice([4, 7, 7, 12, 20])))]
        rows.append(Row(ids, len(head) + 2))
    return rows


def llama(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, "tie_word_embeddings": False, **changes})).to(dtype)


def in_full_precision(model: Any) -> Any:
    """The same model with norms that compute in its own dtype: transformers' round to fp32 on the way."""
    for name, child in list(model.named_children()):
        if type(child).__name__ == "LlamaRMSNorm":
            norm = nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon, dtype=child.weight.dtype)
            setattr(model, name, norm)
        else:
            in_full_precision(child)
    return model


def one_at_a_time(model: Any, rows: list[Row]) -> tuple[float, list[torch.Tensor]]:
    """Mean NLL per supervised token and its gradient by definition: no padding, no batch, the model's own logits."""
    model.zero_grad()
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    total, loss = sum(row.supervised for row in rows), 0.0
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.masked - 1 : -1]
        mean = nnf.cross_entropy(logits, torch.tensor(row.ids[row.masked :]), reduction="sum") / total
        mean.backward()
        loss += mean.item()
    return loss, gradients(model)


def gradients(model: Any) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Relative difference of two gradients as one vector."""
    pairs = list(zip(found, expected, strict=True))
    return (sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)).sqrt().item()


def settled(model: Any, rows: list[Row], **settings: Any) -> tuple[parallel.Placed, Form, list[str]]:
    said: list[str] = []
    placed = parallel.place(model, Fsdp(), Precision(), alone(), chunk=5)
    form = Form(**{"batching": "auto", "pad": 0, "pack_tokens": 90, "micro_batch": 3, **settings})
    return placed, probe.settle(placed, form, rows, said.append), said


def packed_gradients(model: Any, rows: list[Row], **settings: Any) -> tuple[float, list[torch.Tensor]]:
    placed, form, _ = settled(model, rows, **settings)
    model.zero_grad()
    return float(loop.accumulate(placed, rows, form)), gradients(model)


# --- plans ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(20, 100))
def test_best_fit_loses_nothing_and_overfills_nothing(sizes: list[int], capacity: int) -> None:
    filled = packing.best_fit(sizes, capacity)
    assert sorted(index for each in filled for index in each) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in each) <= capacity or len(each) == 1 for each in filled)
    if max(sizes) <= capacity:  # two half-empty bins would have been one
        assert len(filled) <= 2 * sum(sizes) / capacity + 1


def test_best_fit_fills_where_first_fit_would_not() -> None:
    assert packing.best_fit([6, 5, 4, 5], 10) == [[0, 2], [1, 3]]


@given(st.integers(1, 40), st.integers(1, 4), st.integers(30, 200))
def test_every_rank_runs_as_many_passes_and_no_row_is_lost(count: int, world_size: int, budget: int) -> None:
    rows = make_rows(count)
    shares = [packing.bins(rows, budget, PREAMBLES, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    kept = [row for share in shares for each in share for row in each if row.supervised]
    assert Counter(map(str, kept)) == Counter(map(str, rows))
    for each in (each for share in shares for each in share if len(each) > 1):
        assert packing.lay_out(each, PREAMBLES).layout.tokens <= budget


def test_the_load_is_even_over_the_ranks() -> None:
    rows = make_rows(64, seed=3)
    loads = [
        sum(packing.lay_out(each, PREAMBLES).layout.tokens for each in packing.bins(rows, 400, PREAMBLES, rank, 4))
        for rank in range(4)
    ]
    assert max(loads) - min(loads) <= 0.05 * max(loads)


def test_examples_of_equal_length_lie_side_by_side_behind_what_they_share() -> None:
    rows = [Row([*PREAMBLES[0], *range(50, 50 + size)], 13) for size in (4, 7, 4)]
    rows += [Row([*PREAMBLES[1], 60, 61, 62], 18), Row([70, 71, 72], 1)]
    pack = packing.lay_out(rows, PREAMBLES)
    assert pack.shared == (PREAMBLES[0],)  # the other template occurs once: nothing would be saved
    assert pack.layout == Layout(prefixes=(11,), runs=(Run(2, 4, 0), Run(1, 7, 0), Run(1, 3, None), Run(1, 19, None)))
    assert pack.layout.tokens == 11 + 4 + 7 + 4 + 3 + 19
    batch = packed(pack, CPU)
    assert batch.ids.shape == (1, 48)
    assert batch.positions is not None
    assert batch.positions[0, :26].tolist() == [*range(11), *range(11, 15), *range(11, 15), *range(11, 18)]
    targets = {int(place): int(target) for place, target in zip(batch.chosen, batch.targets, strict=True)}
    assert sorted(targets.values()) == sorted(token for row in pack.rows for token in row.ids[row.masked :])
    assert all(int(batch.ids[0, place + 1]) == target for place, target in targets.items())


def test_a_beginning_is_cut_where_the_tokenizer_merges_its_last_token_with_what_follows() -> None:
    rows = make_rows(30)
    merged = [Row([*row.ids[:10], 96, *row.ids[11:]], row.masked) for row in rows if row.ids[1] == 2]
    assert packing.beginnings(rows, PREAMBLES) == (PREAMBLES[1], PREAMBLES[0])
    assert packing.beginnings(merged, PREAMBLES) == (PREAMBLES[0][:10],)
    assert packing.beginnings([Row([5, 6, 7], 1)], PREAMBLES) == ()
    assert packing.beginning_of(Row([*PREAMBLES[0], 50], 11), PREAMBLES) is None  # would be predicted by another's tail


# --- exactness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [(), PREAMBLES], ids=["plain", "shared beginning"])
@pytest.mark.parametrize("budget", [40, 90, 10_000])
def test_packed_loss_and_gradient_are_those_of_one_example_at_a_time(shared: Any, budget: int) -> None:
    rows, model = make_rows(12, plain=2), in_full_precision(llama(torch.float64))
    loss, expected = one_at_a_time(model, rows)
    found, actual = packed_gradients(model, rows, batching="packed", shared=shared, pack_tokens=budget)
    assert found == pytest.approx(loss, rel=1e-9)
    assert difference(actual, expected) <= 1e-9


MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "tied llama with biases": lambda: llama(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0
        )
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**{k: v for k, v in SMALL.items() if "key_value" not in k})),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=16,
            max_position_embeddings=128,
            dropout=0.0,
        )
    ),
    "mistral, window longer than its examples": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=64)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batching", ["packed", "grouped", "padded"])
def test_every_form_of_batch_is_exact_for_models_of_many_kinds(name: str, batching: str) -> None:
    torch.manual_seed(0)
    rows, model = make_rows(9, plain=1), MODELS[name]()
    loss, expected = one_at_a_time(model, rows)
    found, actual = packed_gradients(model, rows, batching=batching, shared=PREAMBLES)
    assert found == pytest.approx(loss, rel=1e-6)
    assert difference(actual, expected) <= 5e-6


def test_logits_that_are_changed_after_the_head_are_taken_from_the_model() -> None:
    torch.manual_seed(0)
    rows, model = make_rows(6), Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0))
    placed, form, said = settled(model, rows, batching="grouped")
    assert not placed.objective.plain_head
    assert "logits after the head" in said[0]
    loss, _ = one_at_a_time(model, rows)
    assert float(loop.accumulate(placed, rows, form)) == pytest.approx(loss, rel=1e-5)


def test_a_model_that_scales_its_logits_is_packed_with_its_own_logits() -> None:
    torch.manual_seed(0)
    rows, model = make_rows(6), GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0))
    loss, expected = one_at_a_time(model, rows)
    placed, form, _ = settled(model, rows)
    assert (form.batching, placed.objective.plain_head) == ("packed", False)
    model.zero_grad()
    assert float(loop.accumulate(placed, rows, form)) == pytest.approx(loss, rel=1e-5)
    assert difference(gradients(model), expected) <= 5e-6


# --- contamination ----------------------------------------------------------------------------------------------------


def test_packing_without_confined_attention_is_silently_wrong_and_ours_is_not() -> None:
    """Positions that restart do not help once an all-ones mask is passed, and neither does leaving positions out."""
    rows, model = make_rows(6), llama()
    loss, expected = one_at_a_time(model, rows)
    batch = collate(rows, Form(batching="packed", pad=0), CPU)
    model.set_attn_implementation("sdpa")
    for wrong in ({"position_ids": batch.positions, "attention_mask": torch.ones_like(batch.ids)}, {}):
        model.zero_grad()
        logits = model(input_ids=batch.ids, **wrong).logits[0, batch.chosen]
        nnf.cross_entropy(logits, batch.targets).backward()
        assert difference(gradients(model), expected) > 0.2
    found, actual = packed_gradients(model, rows, batching="packed", pack_tokens=1000)
    assert found == pytest.approx(loss, rel=1e-6)
    assert difference(actual, expected) <= 1e-6


def test_a_model_whose_examples_would_see_each_other_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
        options = {"is_causal": True, "scale": scaling, "enable_gqa": True}
        return nnf.scaled_dot_product_attention(query, key, value, **options).transpose(1, 2).contiguous(), None

    monkeypatch.setattr(attention, "register", lambda: AttentionInterface.register(attention.NAME, leaky))
    rows = make_rows(6)
    _, form, said = settled(llama(), rows)
    assert form.batching == "grouped"
    assert "LlamaForCausalLM see each other when packed" in said[-1]
    with pytest.raises(UserError, match=r"train.batching: examples of LlamaForCausalLM see each other"):
        settled(llama(), rows, batching="packed")


LEAKING: dict[str, Callable[[], Any]] = {
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2)),
    "falcon": lambda: FalconForCausalLM(
        FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LEAKING)
def test_small_leaks_are_found_too(name: str, dtype: torch.dtype) -> None:
    """Their hidden states differ by less than rounding does; that they differ at all is what is looked at."""
    torch.manual_seed(0)
    stored: Any = "bf16" if dtype == torch.bfloat16 else "fp32"
    placed = parallel.place(
        LEAKING[name]().to(dtype), Fsdp(), Precision(compute=stored, parameters=stored), alone(), chunk=5
    )
    said: list[str] = []
    form = probe.settle(placed, Form(batching="auto", pad=0, pack_tokens=90), make_rows(12), said.append)
    assert form.batching == "grouped", said


def test_rounding_of_low_precision_is_no_leak() -> None:
    """Under autocast hidden states are in fp32 and products in bf16; another kernel rounds otherwise."""
    model = llama()
    model.set_attn_implementation("eager")
    placed = parallel.place(model, Fsdp(), Precision(compute="bf16"), alone(), chunk=5)
    form = probe.settle(placed, Form(batching="packed", pad=0, pack_tokens=90, shared=PREAMBLES), make_rows(12), print)
    assert form.batching == "packed"


def test_the_longest_example_decides_and_learned_positions_are_not_exceeded() -> None:
    rows = [*make_rows(6), Row([1, *range(45, 75)], 3)]
    _, form, said = settled(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=29)), rows, shared=PREAMBLES)
    assert form.batching == "grouped"
    assert "a window of 29 tokens, shorter than 31" in said[-1]
    small = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=30))
    with pytest.raises(UserError, match=r"train.max_length: an example of 31 tokens, and the model has 30 positions"):
        settled(small, rows)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)), "Mamba"),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8)), "softcap"),
        (lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=9)), "a window of 9 tokens"),
    ],
    ids=["state space", "softcap of scores", "short window"],
)
def test_models_that_cannot_be_packed_are_trained_on_padded_rows_and_say_why(
    model: Callable[[], Any], reason: str
) -> None:
    torch.manual_seed(0)
    rows = make_rows(6)
    _, form, said = settled(model(), rows)
    assert form.batching == "grouped"
    assert reason in said[-1]
    with pytest.raises(UserError, match=r"train.batching"):
        settled(model(), rows, batching="packed")


# --- the kernel of GPUs -----------------------------------------------------------------------------------------------


def varlen_reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts_q: Any, starts_k: Any, *_: Any, **options: Any
) -> torch.Tensor:
    """What torch's varlen_attn with window_size=(-1, 0) does, sequence by sequence: causal from the bottom right."""
    outputs = []
    for i in range(len(starts_q) - 1):
        q = query[starts_q[i] : starts_q[i + 1]].transpose(0, 1)
        k, v = (each[starts_k[i] : starts_k[i + 1]].transpose(0, 1) for each in (key, value))
        k, v = (each.repeat_interleave(q.shape[0] // k.shape[0], dim=0) for each in (k, v))
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        output = nnf.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=options["scale"])
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("shared", [(), PREAMBLES], ids=["plain", "shared beginning"])
def test_the_variable_length_form_gives_the_same(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, model = make_rows(12, plain=2), in_full_precision(llama(torch.float64))
    expected_loss, expected = packed_gradients(model, rows, batching="packed", shared=shared)
    monkeypatch.setattr(attention, "_has_kernel", lambda query: True)
    monkeypatch.setattr(attention, "_varlen", lambda: varlen_reference)
    monkeypatch.setattr("alpaca.stages.train.batches.segments_of", attention.indexed)
    loss, found = packed_gradients(model, rows, batching="packed", shared=shared)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert difference(found, expected) <= 1e-12


def test_index_tensors_of_a_layout() -> None:
    layout = Layout(prefixes=(2,), runs=(Run(2, 1, 0), Run(1, 3, None)))
    made = attention.indexed(layout, CPU)
    assert made.query_starts is not None
    assert made.query_starts.tolist() == [0, 2, 3, 4, 7]
    assert made.key_starts is not None
    assert made.key_starts.tolist() == [0, 2, 5, 8, 11]
    assert made.gathered is not None
    assert made.gathered.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6]
    assert made.own is not None
    assert made.own.tolist() == [0, 1, 4, 7, 8, 9, 10]
    assert [each.tolist() for each in made.copies] == [[2, 3, 5, 6]]
