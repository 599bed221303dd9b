"""Every YAML composes, and every wrong command is told whole: keys, values, groups, grammar, contradictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alpaca import checks, sweep
from alpaca.compose import CONF, Composer, parse
from alpaca.config import AdamW, HubModel, MixtureDataGen, Muon, ReleasedDataGen, Run, TinyModel, Weighted
from alpaca.errors import ConfigurationErrors
from alpaca.footprint import gpus
from alpaca.runtime import provenance

OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
NEEDS = {
    ("teacher", "openai"): ["teacher.model=gpt-6-luna"],
    ("teacher", "openai_batch"): ["teacher.model=gpt-6-luna"],
    ("teacher", "replay"): ["teacher.cassette=README.md"],
    ("teacher", "local"): ["teacher.id=owner/name"],
    ("teacher", "vllm"): ["teacher.id=owner/name"],
    ("precision", "bf16_sr"): ["optimizer=adamw"],
    ("data_gen", "reanswer"): ["data_gen.path=README.md"],
    ("data_gen", "mixture"): ["+data_gen.sources.a.path=README.md"],
}


def one(*overrides: str) -> Run:
    return sweep.expand(list(overrides), multirun=False).runs[0]


def problems(*overrides: str, multirun: bool = False) -> str:
    with pytest.raises(ConfigurationErrors) as caught:
        sweep.expand(list(overrides), multirun=multirun)
    return str(caught.value)


def test_no_option_is_missed_by_the_parametrised_test() -> None:
    assert len(OPTIONS) == 63
    assert {group for group, _ in OPTIONS} == set(Composer().group_names())


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes(group: str, name: str) -> None:
    value = f"[{name}]" if group == "eval" else name
    extra = NEEDS.get((group, name), [])
    assert isinstance(one(f"{group}={value}", *extra), Run)


@pytest.mark.parametrize("path", sorted(sweep.SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_question_expands(path: Path) -> None:
    found = sweep.expand([f"sweep={path.stem}"], multirun=False)
    assert found.question
    assert len(found.runs) > 1


def test_the_default_is_the_embedded_world() -> None:
    run = one()
    assert isinstance(run.model, TinyModel)
    assert isinstance(run.optimizer, Muon)
    assert run.precision.compute == "fp32"
    assert run.train.budget.endswith("steps")


def test_another_model_brings_the_published_recipe() -> None:
    run = one("model=llama7b")
    assert isinstance(run.model, HubModel)
    assert isinstance(run.optimizer, AdamW)
    assert isinstance(run.data_gen, ReleasedDataGen)
    assert (run.optimizer.lr, run.optimizer.schedule, run.optimizer.warmup_ratio) == (2e-5, "cosine", 0.03)
    assert (run.train.global_batch, run.train.budget, run.train.max_length) == (128, "3 epochs", 512)
    assert run.precision.compute == "bf16"
    assert run.optimizer.weight_decay == 0


def test_thirteen_billion_has_its_own_rate_and_epochs() -> None:
    for overrides in (["model=llama13b"], ["recipe=alpaca13b"]):
        run = one(*overrides)
        assert (run.model.name, run.optimizer.lr, run.train.budget) == ("llama13b", 1e-5, "5 epochs")


def test_the_command_line_wins_over_what_a_model_brings() -> None:
    run = one("model=llama7b", "optimizer=muon", "precision=fp32", "data_gen=alpaca", "data=curated", "eval=[embedded]")
    assert (run.optimizer.kind, run.precision.compute, run.data_gen.kind, list(run.eval)) == (
        "muon",
        "fp32",
        "alpaca",
        ["embedded"],
    )


def test_seed_sets_all_seeds_and_each_can_be_set_alone() -> None:
    assert one("seed=3").seeds.order == 3
    run = one("seed=3", "seeds.init=5")
    assert (run.seeds.data, run.seeds.init, run.seeds.order, run.data_gen.seed) == (3, 5, 3, 3)  # type: ignore[attr-defined]


def test_two_typos_and_a_bad_group_name_are_told_together() -> None:
    text = problems("data.siez=3", "model=llama8b", "optimizer.lrr=1")
    assert text.startswith("3 problems")
    assert "data.siez=3" in text
    assert "data.size" in text
    assert "llama7b" in text
    assert "optimizer.lr" in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+unknown=1", ["+unknown=1", "not added"]),
        ("++data.size=1", ["++data.size=1", "data.size=VALUE"]),
        ("~data", ["~data", "not added or deleted"]),
        ("optimizer.lr=fast", ["optimizer.lr", "fast", "Float"]),
        ("data.size=many", ["data.size", "many"]),
        ("optimizer.schedule=cosin", ["optimizer.schedule", "cosin", "cosine"]),
        ("data.filters=[lenght]", ["data.filters", "lenght", "length"]),
        ("eval.embedded.metrics=[rouge]", ["eval.embedded.metrics", "rouge_l"]),
        ("eval.embedded.set=embeded", ["eval.embedded.set", "embedded"]),
        ("eval.embeded.size=3", ["eval.embeded.size", "eval.embedded.size"]),
        ("teacher=openai", ["teacher.model", "???"]),
        ("train.budget=3", ["train.budget", "3 epochs"]),
        ("train.budget=fast", ["train.budget", "200 steps"]),
        ("train.global_batch=0", ["train.global_batch", "at least 1"]),
        ("data.dedup_threshold=1.5", ["data.dedup_threshold", "at most 1"]),
        ("optimizer.lr=nan", ["optimizer.lr", "finite"]),
        ("data.size=9999", ["data.size", "data_gen.num_examples=9999"]),
        ("data_gen.seeds=no/such/file", ["data_gen.seeds", "no/such/file"]),
        ("fsdp.mode=full_shard", ["fsdp.world_size", "at least 2"]),
        ("fsdp.world_size=2", ["fsdp.mode", "without a sharding mode"]),
        ("cluster=slrum", ["cluster=slrum", "slurm"]),
        ("sweep=data_sizes", ["sweep=data_sizes", "data_size"]),
        ("data.size=1,2", ["data.size=1,2", "-m"]),
        ("data.size=[", ["data.size=["]),
        ("data", ["data", "key=value"]),
        ("model.kind=hub", ["model.kind", "tiny"]),
        ("eval=[]", ["eval", "no evaluation"]),
    ],
)
def test_each_wrong_override_names_key_value_and_way_out(override: str, words: list[str]) -> None:
    text = problems(override)
    for word in words:
        assert word in text


def test_an_impossible_split_over_processes() -> None:
    assert "train.global_batch" in problems("fsdp=full_shard", "fsdp.world_size=65")
    assert "fsdp.shard_size" in problems("fsdp=hybrid_shard", "fsdp.world_size=4", "fsdp.shard_size=3")
    assert "fsdp.offload" in problems("fsdp=ddp", "fsdp.offload=true")


def test_exact_match_is_refused_where_references_are_free() -> None:
    assert "exact_match" in problems("eval=[user_oriented_252]", "eval.user_oriented_252.metrics=[exact_match]")


def test_all_points_are_checked_and_each_problem_is_told_once() -> None:
    text = problems("data.size=1,2,9999,8888", "seed=0,1", "optimizer.lrr=1", multirun=True)
    assert text.startswith("3 problems")


def test_plus_sweep_is_the_same_as_sweep() -> None:
    assert sweep.expand(["+sweep=data_size"], multirun=False).name == "data_size"


def test_equal_budgets_have_one_spelling() -> None:
    assert one("train.budget=200steps").train.budget == one("train.budget=2e2 steps").train.budget == "200 steps"


def test_fast_composition_equals_hydras_own() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from alpaca.compose import version_base

    overrides = ["data.size=500", "optimizer.lr=1e-3", "seed=4", "eval.embedded.size=7", "data.filters=[length]"]
    composer = Composer()
    parsed, _ = parse(overrides)
    ours = composer.run(parsed)
    with initialize_config_dir(str(CONF), **version_base()):
        assert ours == OmegaConf.to_object(compose("config", overrides=overrides))


def test_a_broken_question_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("question: why?\nfactor: {data.size: [1]}\n")
    with pytest.raises(ConfigurationErrors, match=r"bad\.yaml"):
        sweep.expand(["sweep=bad"], multirun=False, folder=tmp_path)


def test_points_given_twice_are_no_replications() -> None:
    assert "given more than once" in problems("seed=0,0,1", multirun=True)
    assert "given more than once" in problems("data.size=20,20", multirun=True)


def test_a_key_that_only_some_points_have_can_be_set() -> None:
    found = sweep.expand(["teacher=programmatic,openai", "teacher.model=m"], multirun=True)
    assert [run.teacher.kind for run in found.runs] == ["programmatic", "openai"]


def test_an_unknown_option_is_one_problem_not_two() -> None:
    assert problems("model=llama8b", "model.revision=x").startswith("1 problem ")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=${nope}", ["nope"]),
        ("data_gen.seeds=''", ["data_gen.seeds", "empty path"]),
        ("data_gen.seeds=conf", ["data_gen.seeds", "not a file"]),
        ("model.heads=5", ["model.heads", "even parts"]),
    ],
)
def test_sources_and_shapes_are_checked_at_the_door(override: str, words: list[str]) -> None:
    text = problems(override)
    for word in words:
        assert word in text


def test_an_address_with_a_secret_is_refused() -> None:
    text = problems("teacher=openai", "teacher.model=m", "teacher.base_url='https://user:hidden@host/v1'")
    assert "teacher.base_url" in text
    assert "hidden" not in text


def test_globs_intervals_and_two_questions_are_told() -> None:
    assert "list the values" in problems("model=glob(*)", multirun=True)
    assert "one question at a time" in problems("sweep=data_size,other", multirun=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question: [", "flow"),
        ("question: q\nfactors: {data.size: []}", "has no values"),
        ("question: q\nfactors: {data.size: [1]}\nseeds: []", "has no values"),
        ("question: q\nfactors: {data.size: [{a: 1}]}", "map"),
        ("question: q\nfactors: {seed: [1, 2]}", "seeds:"),
        ("question: q\nmetric: embeded.exact_match\nfactors: {data.size: [1, 2]}", "embedded.exact_match"),
    ],
)
def test_each_mistake_in_a_question_file_is_told(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigurationErrors) as caught:
        sweep.expand(["sweep=bad"], multirun=False, folder=tmp_path)
    assert words in str(caught.value)


def test_values_of_a_question_may_hold_any_text(tmp_path: Path) -> None:
    (tmp_path / "texts.yaml").write_text(
        "question: q\nfactors: {train.budget: ['3 epochs', '1e6 tokens']}\nfixed: ['data.size=9']"
    )
    found = sweep.expand(["sweep=texts"], multirun=False, folder=tmp_path)
    assert [run.train.budget for run in found.runs] == ["3 epochs", "1000000 tokens"]


# --- the parts of a mixture, whose names are the user's own


MIXED = "data_gen=mixture"


def parts_of(run: Run) -> dict[str, Weighted]:
    assert isinstance(run.data_gen, MixtureDataGen)
    return run.data_gen.sources


@pytest.mark.parametrize(
    "overrides",
    [
        ["data_gen.sources={a:{hub:o/a,weight:2},b:{hub:o/b}}"],
        ["+data_gen.sources={a:{hub:o/a,weight:2}}", "+data_gen.sources.b.hub=o/b"],
        ["+data_gen.sources.a.hub=o/a", "+data_gen.sources.b.hub=o/b", "+data_gen.sources.a.weight=2"],
        ["++data_gen.sources.a.hub=o/a", "+data_gen.sources.b.hub=o/b", "data_gen.sources.a.weight=2"],
    ],
)
def test_parts_of_a_mixture_can_be_given_in_every_way(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from alpaca.compose import in_hydras_words, version_base

    run = one(MIXED, *overrides)
    assert {name: (part.hub, part.weight) for name, part in parts_of(run).items()} == {
        "a": ("o/a", 2.0),
        "b": ("o/b", 1.0),
    }
    with initialize_config_dir(str(CONF), **version_base()):
        assert run == OmegaConf.to_object(compose("config", overrides=in_hydras_words([MIXED, *overrides])))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data_gen.sources={a:{pth:X}}", ["data_gen.sources.a.pth", "did you mean path?"]),
        ("+data_gen.sources.a.wieght=2", ["data_gen.sources.a.wieght", "did you mean weight?"]),
        ("data_gen.sources={a:{path:README.md,weight:much}}", ["data_gen.sources", "much", "Float"]),
        ("data_gen.sources={a:README.md}", ["data_gen.sources.a", "no data set", "path:FILE"]),
        ("data_gen.sources=README.md", ["data_gen.sources", "no data set"]),
        ("data_gen.sources.b.path=README.md", ["data_gen.sources.b.path", "+data_gen.sources.b.path"]),
        ("data_gen.sources.good.pth=README.md", ["data_gen.sources.good.pth", "data_gen.sources.good.path"]),
        ("+data_gen.sources.a.weight=0", ["data_gen.sources.a.weight", "more than 0", "data_gen.sources.a.path"]),
        ("+data_gen.sources.a.weight=-1", ["data_gen.sources.a.weight", "-1"]),
        ("+data_gen.sources.a.path=no/such", ["data_gen.sources.a.path", "no such file"]),
        ("+data_gen.sources.a.path=conf", ["data_gen.sources.a.path", "not a file", "examples.jsonl"]),
        ("+data_gen.sources.a.format=doly", ["data_gen.sources.a.format", "dolly"]),
        ("+data_gen.sources.a.hub=doly", ["data_gen.sources.a.hub", "owner/name"]),
        ("data_gen.sources={a.b:{hub:o/n}}", ["data_gen.sources.a.b", "cannot be a name"]),
        ("data_gen.sources={1:{hub:o/n}}", ["data_gen.sources.1", "cannot be a name"]),
        ("+data_gen.source.a.path=X", ["+data_gen.source.a.path=X", "not added"]),
    ],
)
def test_each_mistake_in_a_part_of_a_mixture_is_told(override: str, words: list[str]) -> None:
    text = problems(MIXED, "+data_gen.sources.good.hub=owner/name", override)
    for word in words:
        assert word in text


def test_a_mixture_needs_parts_and_only_a_mixture_has_them() -> None:
    assert "no data sets to mix" in problems(MIXED)
    assert "only data_gen=mixture has sources" in problems("+data_gen.sources.a.path=README.md")


def test_weights_are_a_factor() -> None:
    overrides = [MIXED, "data_gen.sources={a:{hub:o/a},b:{hub:o/b}}", "data_gen.sources.a.weight=1,3"]
    assert [parts_of(run)["a"].weight for run in sweep.expand(overrides, multirun=True).runs] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("{pth: X}", ["'data_gen/mine'", "data_gen.sources.a.pth", "did you mean path?"]),
        ("{weight: much}", ["data_gen.sources.a.weight", "much"]),
    ],
)
def test_a_mixture_of_ones_own_is_one_file(part: str, words: list[str], tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    shipped = (CONF / "data_gen" / "mixture.yaml").read_text()
    path = conf / "data_gen" / "mine.yaml"
    path.write_text(f"{shipped}sources:\n  a: {{hub: o/n, weight: 2}}\n")
    (run,) = sweep.expand(["data_gen=mine"], multirun=False, composer=Composer(conf)).runs
    assert parts_of(run)["a"].weight == 2
    path.write_text(f"{shipped}sources:\n  a: {part}\n")
    with pytest.raises(ConfigurationErrors) as caught:
        sweep.expand(["data_gen=mine"], multirun=False, composer=Composer(conf))
    for word in words:
        assert word in str(caught.value)


def test_the_folder_of_a_finished_stage_and_its_file_are_one_identity(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text("{}")
    found = one("data_gen=released", f"data_gen.path={tmp_path}").data_gen
    assert isinstance(found, ReleasedDataGen)
    assert found.path == str(tmp_path / "examples.jsonl")
    (tmp_path / "stage.json").write_text("{}")
    assert "folder of a finished stage" in problems("data_gen=released", f"data_gen.path={tmp_path}")


def test_small_input_files_are_read_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("{}\nx\n")
    (tmp_path / "data.json").write_bytes(b"\x1f\x8b")
    assert "line 2: not JSON" in problems(f"data_gen.seeds={tmp_path / 'seeds.jsonl'}")
    assert "gunzip" in problems("data_gen=released", f"data_gen.path={tmp_path / 'data.json'}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data_gen.seeds_per_prompt=8", "data_gen.machine_share=0.25", "data_gen.num_examples=384", "data.size=null"],
         "the share would mean nothing"),
        (["data_gen.machine_share=0.1"], "less than half a task"),
        (["data_gen.language=German"], "would not heed it"),
        (["data=cleaned", "data.language=english"], "no code of a language"),
        (["data.judge_least=4"], "has no effect with data.selection=random"),
        (["data.moderation_url=http://127.0.0.1:1/v1"], "has no effect with data.moderation=none"),
        (["data.selection=indices"], "no file of positions given"),
        (["data_gen=reanswer"], "no instructions to be answered"),
        (["teacher=openai", "teacher.model=m", "spend.max_usd=1", "teacher.base_url=http://127.0.0.1:1/v1"],
         "price of this teacher's tokens is not known"),
        (["teacher=openai", "teacher.model=gpt-6-luna", "teacher.service_tier=priority", "spend.max_usd=1"],
         "service tier 'priority'"),
        (["teacher=local"], "has no model"),
    ],
)  # fmt: skip
def test_knobs_of_instruction_data_that_do_not_fit_are_told(overrides: list[str], words: str) -> None:
    assert words in problems(*overrides)


# --- training: what cannot work together


LLAMA = "model=llama7b"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer.no_decay=[head]"], ["optimizer.no_decay", "'head'", "bias, embedding, norm"]),
        (["train.lora_rank=4"], ["train.lora_rank", "4 has no effect with train.adapter=none"]),
        (["train.lora_targets=[q_proj]"], ["train.lora_targets", "no effect"]),
        (["train.adapter=lora", "train.lora_targets=[]"], ["train.lora_targets", "no layer gets an update"]),
        (["train.patience=3"], ["train.patience", "train.holdout=200"]),
        ([LLAMA, "precision=bf16_plain", "train.adapter=lora"], ["precision.rounding", "most updates lost"]),
        ([LLAMA, "train.adapter=qlora", "fsdp=full_shard"], ["train.adapter", "one process alone"]),
        ([LLAMA, "train.adapter=qlora", "fsdp=ddp"], ["train.adapter", "(fsdp.mode=ddp)", "fsdp=none"]),
        (["precision.rounding=stochastic"], ["precision.rounding", "no effect where weights and states are in fp32"]),
        ([LLAMA, "precision=bf16_sr", "optimizer=muon"], ["precision.rounding", "muon cannot round"]),
        ([LLAMA, "precision=bf16_sr", "optimizer=adafactor"], ["precision.rounding", "adafactor cannot round"]),
        ([LLAMA, "optimizer.eps=0"], ["optimizer.eps", "0.0 is below the least"]),
        (["optimizer.clip=0"], ["optimizer.clip", "optimizer.clip=null switches clipping off"]),
        (["train.holdout=1000"], ["train.holdout", "1,000 of 1,000 examples held out", "below data.size=1000"]),
        ([LLAMA, "optimizer=adafactor", "optimizer.clip_update=0.5"], ["optimizer.clip_update", "below the least"]),
        ([LLAMA, "optimizer=adafactor", "optimizer.beta2_decay=0.5"], ["optimizer.beta2_decay", "above 0"]),
        ([LLAMA, "precision=fp16", "precision.parameters=bf16"], ["precision.compute", "products in fp16 over"]),
        ([LLAMA, "precision=fp8", "train.adapter=lora"], ["precision.compute", "fp8 products"]),
        (["train.pack_tokens=128"], ["train.pack_tokens", "train.max_length=256", "train.batching=grouped"]),
        (["train.batch_unit=tokens", "train.global_batch=100"], ["train.global_batch", "do not hold one example"]),
        (["fsdp=ddp", "fsdp.offload=true"], ["fsdp.offload", "only shards can wait in host memory"]),
        (["fsdp=ddp", "fsdp.world_size=65"], ["train.global_batch", "65 processes"]),
        (["fsdp=hybrid_shard", "fsdp.shard_size=3"], ["fsdp.shard_size", "8 processes cannot form groups of 3"]),
        (["fsdp.gpu=H100"], ["fsdp.gpu", "H100-80GB"]),
    ],
)
def test_settings_of_training_that_cannot_work_together_are_refused(overrides: list[str], words: list[str]) -> None:
    text = problems(*overrides)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.micro_batch=48"],
        ["fsdp=full_shard", "fsdp.world_size=3"],
        ["fsdp=hybrid_shard", "fsdp.world_size=2", "fsdp.shard_size=1"],
        ["fsdp=hybrid_shard", "fsdp.world_size=2", "fsdp.shard_size=2"],
        ["fsdp=hybrid_shard", "fsdp.world_size=2", "fsdp.shard_size=null"],
        ["train.batching=padded", "train.pack_tokens=128"],
        ["train.batching=padded", "train.shared_prefix=true"],
        [LLAMA, "train.adapter=qlora"],
        [LLAMA, "precision=bf16_sr", "optimizer=adamw8bit"],
        [LLAMA, "precision=bf16", "precision.states=bf16", "precision.rounding=stochastic"],
        [LLAMA, "train.adapter=lora", "train.lora_rank=4"],
        [LLAMA, "optimizer=adafactor", "fsdp=full_shard"],
        ["optimizer.clip=null", "train.holdout=999"],
        ["data.size=null", "train.holdout=1000"],
        [LLAMA, "fsdp=full_shard", "fsdp.offload=true", "fsdp.gpu=h100-80gb"],
    ],
)
def test_what_only_looks_wrong_is_allowed(overrides: list[str]) -> None:
    assert isinstance(one(*overrides), Run)


@pytest.mark.parametrize("override", ["optimizer.eps=0", "train.lora_rank=0", "optimizer.clip=-1"])
def test_a_leaf_out_of_range_is_told_once(override: str) -> None:
    assert problems(LLAMA, override).startswith("1 problem in the configuration")


def test_plain_bf16_is_a_caution_and_stochastic_rounding_is_not() -> None:
    (text,) = checks.cautions(one(LLAMA, "precision=bf16_plain"))
    assert "precision=bf16_sr" in text
    assert checks.cautions(one(LLAMA, "precision=bf16_sr")) == []


# --- what this machine lacks


def lacks(*overrides: str, planned: bool = True) -> str:
    found = checks.machine_lacks(one(*overrides), {"train"}, planned=planned)
    return "\n".join(problem.text() for problem in found)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 0)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 16 * 2**30)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["precision=fp8"], "fp8 is a format of GPUs"),
        (["precision=tf32"], "tf32 is a format of GPUs"),
        (["fsdp.gpu=V100-32GB", "precision=bf16"], "V100-32GB (compute capability 7.0) has no bf16"),
        (["fsdp.gpu=T4", "precision=tf32"], "has no tf32"),
        (["fsdp.gpu=A100-80GB", "precision=fp8"], "A100-80GB (compute capability 8.0) has no fp8"),
        (["fsdp=full_shard", "fsdp.world_size=2", "fsdp.offload=true"], "this machine has none"),
        ([LLAMA, "fsdp.gpu=H200"], "precision=bf16_sr would fit"),
        ([LLAMA, "fsdp.gpu=H200", "precision=fp32", "optimizer=muon", "train.pack_tokens=16384"], "would fit"),
        ([LLAMA, "fsdp.gpu=H100-80GB"], "GiB per process (states 50.2"),
        ([LLAMA, "fsdp.gpu=A100-40GB"], "train.adapter=lora would fit together"),
        ([LLAMA], "this machine has 16 GiB and no GPU"),
        ([LLAMA], "training llama7b on this machine's CPU needs about "),
    ],
)  # fmt: skip
def test_what_a_machine_cannot_do_is_told_before_the_start(overrides: list[str], words: str) -> None:
    assert words in lacks(*overrides)


ELSEWHERE = [LLAMA, "fsdp=full_shard", "fsdp.world_size=64", "fsdp.offload=true", "precision=fp8"]


@pytest.mark.usefixtures("no_gpu")
def test_what_is_planned_for_a_named_gpu_needs_none_here_until_it_runs_here() -> None:
    words = (
        "64 processes wanted",
        "offload moves tensors off a GPU",
        "fp8 is a format of GPUs",
        "on this machine's CPU",
    )
    plan, real = (lacks(*ELSEWHERE, "fsdp.gpu=H100-80GB", planned=planned) for planned in (True, False))
    assert [word for word in words if word in plan] == []
    assert [word for word in words if word in real] == list(words)
    assert [word for word in words if word in lacks(*ELSEWHERE)] == list(words)


def test_a_real_run_is_judged_by_the_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 1)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 500 * 2**30)
    monkeypatch.setattr(gpus, "here", lambda: gpus.named("T4"))
    settings = [LLAMA, "fsdp.gpu=H200", "precision=bf16_sr"]
    assert "T4" not in lacks(*settings)
    assert "a GPU T4 has 15 GiB" in lacks(*settings, planned=False)
    monkeypatch.setattr(gpus, "here", lambda: None)
    assert "GiB per process" not in lacks(*settings, planned=False)


@pytest.mark.usefixtures("no_gpu")
def test_a_base_in_four_bits_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install bitsandbytes" in lacks(LLAMA, "train.adapter=qlora")


@pytest.mark.usefixtures("no_gpu")
def test_what_fits_is_not_complained_of() -> None:
    assert lacks() == ""
    assert lacks("precision=bf16") == ""
    weights_alone = lacks(LLAMA, "fsdp.gpu=H200", "precision=bf16_sr").split("\n")
    assert [line for line in weights_alone if "GiB" in line] == []


def test_host_memory_must_hold_one_copy_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 8)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 20 * 2**30)
    adapter = [LLAMA, "fsdp.gpu=H100-80GB", "train.adapter=lora"]
    assert "needs 25.1 GiB of host memory for its weights to load, this machine has 20" in lacks(*adapter)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 26 * 2**30)
    assert "host memory" not in lacks(*adapter)


EIGHT = [LLAMA, "fsdp.gpu=H200", "fsdp.world_size=8"]


@pytest.mark.parametrize(
    ("overrides", "present", "told", "remedy"),
    [
        (["fsdp=full_shard"], 70, "model: llama7b needs 75.3 GiB", "precision=bf16_sr would fit"),
        (["fsdp=full_shard"], 76, "", ""),
        (["fsdp=full_shard", "fsdp.offload=true"], 170, "fsdp.offload: llama7b needs 176 GiB", "fsdp.offload=false"),
        (["fsdp=full_shard", "fsdp.offload=true"], 180, "", ""),
        (["fsdp=ddp"], 200, "8 x 75.3 beside its GPUs (staging 75.3)", "fsdp=full_shard would fit"),
        (["fsdp=full_shard", "train.on_spike=rollback"], 100, "needs 151 GiB", "train.on_spike=report would fit"),
        (
            ["fsdp=full_shard", "train.on_spike=rollback", "train.on_nonfinite=rollback"],
            100,
            "needs 151 GiB",
            "train.on_spike=report train.on_nonfinite=stop would fit",
        ),
        (
            ["fsdp=full_shard", "train.holdout=9", "train.patience=3"],
            90,
            "needs 100 GiB",
            "train.patience=null would fit",
        ),
    ],
)
def test_host_memory_must_hold_what_checkpoints_are_written_from(
    overrides: list[str], present: int, told: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 8)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: present * 2**30)
    text = lacks(*EIGHT, *overrides)
    assert told in text
    assert remedy in text
    assert ("host memory" in text) == bool(told)


def test_of_several_machines_each_holds_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 8)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 40 * 2**30)
    assert "host memory" not in lacks(LLAMA, "fsdp.gpu=H200", "fsdp=full_shard", "fsdp.world_size=16")


@pytest.mark.usefixtures("no_gpu")
def test_on_a_cpu_the_copies_are_a_part_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 260 * 2**30)
    alone = [LLAMA, "precision=fp32", "optimizer=adamw", "train.global_batch=32"]
    assert "GiB per process" not in lacks(*alone)
    text = lacks(*alone, "train.on_nonfinite=rollback")
    assert "staging 151" in text
    assert "train.on_nonfinite=stop would fit" in text


def test_the_first_way_out_is_sharding_where_there_are_more_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 8)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 500 * 2**30)
    monkeypatch.setattr(gpus, "here", lambda: gpus.named("A100-80GB"))
    assert "fsdp=full_shard fsdp.world_size=8 would fit" in lacks(LLAMA)


def test_a_file_that_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    text = "defaults: [slurm_cpu, _self_]\nstages: {train: {cpus: 2 minutes: 30}}\n"
    (conf / "cluster" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationErrors, match=r"mine\.yaml, line 2, column \d+: is no YAML"):
        sweep.expand(["cluster=mine"], multirun=False, composer=Composer(conf))
