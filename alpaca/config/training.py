"""Configuration of training: how long and on what (Train), by which rule (Optimizer), in which numbers, on how many."""

from __future__ import annotations

from dataclasses import dataclass

from alpaca.config.marks import MISSING, how, what


@dataclass(kw_only=True, slots=True)
class Train:
    """Supervised fine-tuning (Alpaca's templates, loss on the output and eos only)."""

    budget: str = what("3 epochs")
    """How long: "3 epochs", "200 steps" or "1e6 tokens" (supervised and prompt tokens, without padding)."""
    global_batch: int = what(128, least=1)
    """Per optimizer step, over all processes and forward passes, in `batch_unit`."""
    batch_unit: str = what("examples", choices=("examples", "tokens"))
    """tokens: as many whole examples as fit into global_batch tokens (prompt and response), at least one."""
    max_length: int = what(512, least=8)
    """Tokens of prompt and response together; longer examples are cut at the end, and counted."""
    vocabulary_multiple: int = what(1, least=1)
    """The embedding's rows are filled up to a multiple of this with rows at the mean; 64 suits a GPU's matrix units."""
    adapter: str = what("none", choices=("none", "lora", "qlora"))
    """lora: low-rank updates of the linear layers (arXiv 2106.09685), merged into the exported weights; qlora: over a
    base in 4 bits (arXiv 2305.14314)."""
    lora_rank: int = what(8, least=1)
    lora_alpha: float = what(16.0, least=0.0)
    """The update is scaled by alpha / rank."""
    lora_targets: list[str] | None = what(None)
    """Names of the linear layers that get an update, such as [q_proj,v_proj]; null: all but the output head."""
    holdout: int = what(0, least=0)
    """Examples held out of training, drawn by seeds.order; their loss is recorded."""
    holdout_steps: int = what(50, least=1)
    """Steps between two looks at the held-out examples."""
    patience: int | None = what(None, least=1)
    """Early stopping: ends after so many looks without a new best, and the best weights are exported; null: never."""
    on_nonfinite: str = what("stop", choices=("stop", "skip", "rollback"))
    """A loss or gradient that is no finite number: end with an error, leave the batch out, or go back to the last
    point that was kept (`rollback_steps`) and leave out the batches since."""
    rollback_steps: int = what(100, least=1)
    """Steps between the points that a rollback goes back to; the first is after the first step."""
    on_spike: str = what("report", choices=("report", "stop", "rollback"))
    """A loss far above those before it (`spike_deviations`)."""
    spike_deviations: float = what(8.0, least=1.0)
    """Standard deviations of the last 50 losses above their mean at which a loss counts as a spike."""
    batching: str = how("auto", choices=("auto", "packed", "grouped", "padded"))
    """How a global batch becomes forward passes; the loss is the same. packed: examples end to end without padding,
    each attending to itself alone; grouped: padded rows of similar length; padded: padded rows as they come (the
    released recipe's way); auto: packed where the model can, else grouped."""
    pack_tokens: int = how(4096, least=8)
    """Tokens of one packed forward pass per process, the shared beginnings included."""
    shared_prefix: bool = how(True)
    """Packed: compute the beginning that all examples have in common (the template's) once per pass."""
    micro_batch: int = how(4, least=1)
    """grouped, padded: examples per forward pass and process; accumulation follows."""
    loss_chunk: int = how(1024, least=1)
    """Supervised positions whose logits exist at the same time."""
    recompute: str = how("none", choices=("none", "selective", "full"))
    """Activation checkpointing. full: each layer is computed again in the backward pass; selective: all but its matrix
    products."""
    compile: bool = how(False)
    """torch.compile of each layer; half a minute at the start."""
    checkpoint_seconds: float = how(60.0, least=0.0)
    """Seconds between resumable checkpoints."""
    keep_checkpoints: int = how(2, least=1)
    """Whole checkpoints that stay on disk until the stage is finished."""
    profile: bool = how(False)
    """Write a trace and a table of where a few steps go into the stage's folder `profile/`."""


@dataclass(kw_only=True, slots=True)
class Optimizer:
    """Base of the optimizers, with the schedule that all of them share."""

    kind: str = what(MISSING)
    lr: float = what(2e-5, least=0.0)
    schedule: str = what("cosine", choices=("cosine", "linear", "constant", "wsd"))
    """wsd: constant, then linear to zero over the last 40 % of the steps."""
    warmup_ratio: float = what(0.03, least=0.0, below=1.0)
    """Share of all steps in which the rate rises linearly from zero."""
    clip: float | None = what(1.0, least=0.0)
    """Largest norm of the gradient; null: unclipped."""
    weight_decay: float = what(0.0, least=0.0)
    """Decoupled (arXiv 1711.05101): each step takes lr * weight_decay of the weight away."""
    no_decay: list[str] = what(factory=lambda: ["bias", "norm"])
    """Parameters without weight decay: any of bias, norm (all one-dimensional ones), embedding (with the head)."""


@dataclass(kw_only=True, slots=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101); torch's, or ours where states or weights are in bf16."""

    kind: str = what("adamw", choices=("adamw",))
    beta1: float = what(0.9, least=0.0, below=1.0)
    beta2: float = what(0.999, least=0.0, below=1.0)
    eps: float = what(1e-8, least=1e-30)


@dataclass(kw_only=True, slots=True)
class AdamW8bit(Optimizer):
    """AdamW whose two states are kept in 8 bits per number, scaled block by block (arXiv 2110.02861)."""

    kind: str = what("adamw8bit", choices=("adamw8bit",))
    beta1: float = what(0.9, least=0.0, below=1.0)
    beta2: float = what(0.999, least=0.0, below=1.0)
    eps: float = what(1e-8, least=1e-30)
    block: int = what(256, least=16)
    """Neighbouring numbers of a row that share a scale."""


@dataclass(kw_only=True, slots=True)
class Muon(Optimizer):
    """torch.optim.Muon on the hidden matrices (`lr`), AdamW on embeddings, head, norms and biases (`adamw_lr`)."""

    kind: str = what("muon", choices=("muon",))
    lr: float = what(0.024, least=0.0)
    momentum: float = what(0.95, least=0.0, below=1.0)
    weight_decay: float = what(0.1, least=0.0)
    adamw_lr: float = what(0.004, least=0.0)
    adamw_beta1: float = what(0.9, least=0.0, below=1.0)
    adamw_beta2: float = what(0.98, least=0.0, below=1.0)


@dataclass(kw_only=True, slots=True)
class Adafactor(Optimizer):
    """Adafactor, by torch.optim (Shazeer & Stern, arXiv 1804.04235): row and column means instead of a second state."""

    kind: str = what("adafactor", choices=("adafactor",))
    beta2_decay: float = what(-0.8)
    """Exponent of the step in the decay of the second moment; below zero."""
    clip_update: float = what(1.0, least=1.0)
    """Largest root mean square of an update (the paper's d)."""


@dataclass(kw_only=True, slots=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, its weight decay decoupled as in all others here."""

    kind: str = what("sgd", choices=("sgd",))
    momentum: float = what(0.9, least=0.0, below=1.0)


@dataclass(kw_only=True, slots=True)
class Precision:
    """Number formats of training."""

    compute: str = what("fp32", choices=("fp32", "tf32", "bf16", "fp16", "fp8"))
    """Of matrix products. tf32: fp32 rounded to ten bits inside a GPU's matrix units; fp16: with loss scaling; fp8: the
    linear layers' products in 8 bits, scaled by tensor, everything else in bf16."""
    parameters: str = what("fp32", choices=("fp32", "bf16"))
    """Of weights and gradients, as stored. fp32 beside compute=bf16 is mixed precision with master weights."""
    states: str = what("fp32", choices=("fp32", "bf16"))
    """Of the optimizer's states (AdamW)."""
    rounding: str = what("nearest", choices=("nearest", "stochastic"))
    """How updates reach weights and states in bf16. At fine-tuning rates most updates are smaller than half a step of
    bf16: nearest loses them, stochastic keeps them on average."""


@dataclass(kw_only=True, slots=True)
class Fsdp:
    """How training is spread over processes: names of PyTorch's sharding strategies, run by FSDP2."""

    mode: str = how("none", choices=("none", "ddp", "full_shard", "shard_grad_op", "hybrid_shard"))
    world_size: int = how(1, least=1)
    """Processes, one per GPU (or per core where there is no GPU)."""
    shard_size: int | None = how(None, least=1)
    """hybrid_shard: processes in one shard group; the groups replicate each other. null: half of world_size."""
    offload: bool = how(False)
    """Parameters and optimizer states in host memory (GPU only)."""
    gpu: str | None = how(None)
    """Name of the GPU that the plan's forecast assumes, such as H100-80GB; null: the one of this machine, if any."""
