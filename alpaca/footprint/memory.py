"""Memory of training per process, by part, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from alpaca.config import Fsdp, Optimizer, Precision, Run, Train, TrainConfig
from alpaca.footprint.shape import Shape
from alpaca.footprint.work import Work

GIB = 2**30
SHARDED = ("full_shard", "shard_grad_op", "hybrid_shard")
BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Of one activation, by `precision.compute`; fp8 is used inside the matrix products alone."""
QLORA_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a frozen weight: 4 bits, a scale in 8 bits for 64 of them, and one in fp32 for 256 scales (arXiv 2305.14314)."""
GPU_CONTEXT = 0.6 * GIB
"""What the driver takes for a process."""
FRAGMENTED = 0.04
"""Share of what is held that the GPU's allocator loses between its blocks."""
SCATTERED = 0.4
"""Share of the activations that the C library's allocator adds on a CPU where a step has several passes: the gradients
of the first lie between what it freed (measured)."""
CPU_CONTEXT = 0.03 * GIB
"""Libraries' buffers and code that only training loads."""
CPU_BF16_KERNELS = 0.27 * GIB
"""What oneDNN keeps on a CPU for products in bf16: a kernel made for each new shape, and packed passes hardly ever have
the same; workers keep 64 (`dispatch.local.environment`). Measured on the embedded model, which takes 0.47 GiB in fp32:
0.72 after 151 steps (without the bound 0.91, and 1.05 after 400). fp16 has no such kernels."""
LIBRARIES = 0.38 * GIB
"""Python, torch and transformers, imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of one process at its peak, the pass with the most tokens."""

    parameters: float
    gradients: float
    states: float
    """The optimizer's."""
    activations: float
    """What the forward pass keeps for the backward pass."""
    loss: float
    """Logits of one chunk of positions, and the head's gradient beside them."""
    gathered: float = 0.0
    """Layers of sharded models that are whole for the moment."""
    copies: float = 0.0
    """Weights in the numbers of the matrix products, beside those that are trained."""
    overhead: float = 0.0
    libraries: float = 0.0
    """Interpreter and libraries of a process on a CPU, before a model is made."""
    staging: float = 0.0
    """On a CPU: the copies from which checkpoints are written."""
    host: dict[str, float] = field(default_factory=dict)
    """What a process holds in host memory beside its GPU, by part: staging, offloaded."""

    @property
    def total(self) -> float:
        """On the device (on a CPU: in host memory)."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """The parts that are there, largest first."""
        found: dict[str, float] = {name: value for name, value in asdict(self).items() if name != "host" and value}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def host_total(self) -> float:
        """In host memory beside a GPU."""
        return sum(self.host.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings that memory and time depend on."""

    train: Train
    optimizer: Optimizer
    precision: Precision
    fsdp: Fsdp
    on_gpu: bool


def settings_of(config: Run | TrainConfig, on_gpu: bool) -> Settings:
    """The part of a configuration that counts here."""
    return Settings(
        train=config.train,
        optimizer=config.optimizer,
        precision=config.precision,
        fsdp=config.fsdp,
        on_gpu=on_gpu,
    )


def memory(shape: Shape, work: Work, settings: Settings) -> Memory:
    """The peak of one process. work: of a pass with the most tokens."""
    shards = shard_count(settings.fsdp)
    kept = _kept(shape, settings)
    parts = Memory(
        parameters=kept[0] / shards,
        gradients=kept[1] / shards,
        states=kept[2] / shards,
        activations=saved(shape, work, settings) + _working(shape, work, settings),
        loss=_loss(shape, work, settings),
        gathered=_gathered(shape, settings) if shards > 1 else 0.0,
        copies=_copies(shape, settings) if shards == 1 else 0.0,
    )
    host = {"staging": staging(shape, settings)}
    if settings.fsdp.offload and settings.on_gpu:
        host["offloaded"] = parts.parameters + parts.gradients + parts.states
        parts = replace(parts, parameters=0.0, gradients=0.0, states=0.0)
    parts = replace(parts, overhead=_overhead(parts, work, settings))
    if settings.on_gpu:
        return replace(parts, host=host)
    return replace(parts, libraries=LIBRARIES, staging=host["staging"])


def staging(shape: Shape, settings: Settings) -> float:
    """Bytes of a process in host memory that checkpoints are written from (page-locked where there is a GPU).

    They are taken at the first save and kept: the trained weights and their states; the same again for the points that
    a rollback goes back to; the weights again for the best ones of early stopping. With ddp each process has all.
    """
    # However short the run: it saves at its end in any case, sooner on a signal, a new best or a rollback's first
    # point, and how long it will take is a guess. A forecast too high by this, where the activations are gone by then,
    # is better than a run that is killed at its first checkpoint.
    train = settings.train
    weights = trained(shape, train) * BYTES[settings.precision.parameters]
    whole = weights + state_bytes(shape, settings)
    points = whole if "rollback" in (train.on_spike, train.on_nonfinite) else 0.0
    best = weights if train.patience is not None else 0.0
    return (whole + points + best) / shard_count(settings.fsdp)


def _overhead(parts: Memory, work: Work, settings: Settings) -> float:
    if settings.on_gpu:
        return GPU_CONTEXT + FRAGMENTED * parts.total
    kernels = CPU_BF16_KERNELS if settings.precision.compute == "bf16" else 0.0
    return CPU_CONTEXT + kernels + (SCATTERED * parts.activations if work.passes > 1 else 0.0)


def shard_count(fsdp: Fsdp) -> int:
    """Processes that share one copy of parameters, gradients and states."""
    if fsdp.mode not in SHARDED:
        return 1
    if fsdp.mode == "hybrid_shard":
        return fsdp.shard_size or max(1, fsdp.world_size // 2)
    return fsdp.world_size


def trained(shape: Shape, train: Train) -> int:
    """Parameters that get gradients and states: all, or the adapter's."""
    if train.adapter == "none":
        return shape.parameters
    ends = _linear_ends(shape)
    chosen = ends if train.lora_targets is None else {name: ends[name] for name in train.lora_targets if name in ends}
    return shape.layers * train.lora_rank * sum(chosen.values())


def _linear_ends(shape: Shape) -> dict[str, int]:
    """Inputs plus outputs of each linear layer of Llama; an update of rank r has r times as many numbers."""
    queries, values = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    block = shape.width + shape.feed_forward
    attention = {"q_proj": shape.width + queries, "k_proj": shape.width + values, "v_proj": shape.width + values}
    feed_forward = {"up_proj": block, "down_proj": block} | ({"gate_proj": block} if shape.gated else {})
    return {**attention, "o_proj": shape.width + queries, **feed_forward}


def _kept(shape: Shape, settings: Settings) -> tuple[float, float, float]:
    """Bytes of parameters, gradients and states over all shards."""
    train, number = settings.train, BYTES[settings.precision.parameters]
    updated = trained(shape, train)
    states = state_bytes(shape, settings)
    if train.adapter == "none":
        return shape.parameters * number, shape.parameters * number, states
    frozen: float = shape.parameters * number
    if train.adapter == "qlora":
        linear = shape.layers * shape.layer_matrices
        frozen = linear * QLORA_BYTES + (shape.parameters - linear) * number
    return frozen + updated * number, updated * number, states


def state_bytes(shape: Shape, settings: Settings) -> float:
    """The optimizer's states over all shards."""
    optimizer, updated = settings.optimizer, trained(shape, settings.train)
    number = BYTES[settings.precision.parameters]
    if optimizer.kind == "adamw":
        return updated * 2 * BYTES[settings.precision.states]
    if optimizer.kind == "adamw8bit":
        ends = 0 if settings.train.adapter != "none" else shape.ends  # whose states stay in fp32
        return (updated - ends) * 2 * (1 + 4 / getattr(optimizer, "block", 256)) + ends * 8
    if optimizer.kind == "sgd":
        return updated * number if getattr(optimizer, "momentum", 0.0) else 0.0
    if optimizer.kind == "muon":
        hidden = updated if settings.train.adapter != "none" else shape.layers * shape.layer_matrices
        return hidden * number + (updated - hidden) * 2 * number
    return 4.0 * updated / max(1, min(shape.width, shape.feed_forward))  # adafactor: means of rows and columns


def saved(shape: Shape, work: Work, settings: Settings) -> float:
    """What the layers keep of one pass for its backward pass."""
    number = BYTES[settings.precision.compute]
    whole = layer_bytes(shape, work, settings)
    edges = work.tokens * 2 * 4 * (shape.width + shape.head_size)  # the last norm, rotations by position
    if settings.train.recompute == "none":
        return shape.layers * whole + edges
    kept = number * work.tokens * shape.width
    if settings.train.recompute == "selective":
        products = 3 * shape.width + shape.head_size * (shape.heads + 2 * shape.kv_heads)
        products += (2 if shape.gated else 1) * shape.feed_forward
        kept += number * work.tokens * products
    return shape.layers * kept + whole + edges  # one layer is whole while its backward pass runs


def _working(shape: Shape, work: Work, settings: Settings) -> float:
    """Gradients under way through a feed-forward block while everything is still kept."""
    number = BYTES[settings.precision.compute]
    return number * work.tokens * ((3 if shape.gated else 2) * shape.feed_forward + 2 * shape.width)


def layer_bytes(shape: Shape, work: Work, settings: Settings) -> float:
    """What PyTorch saves in one Llama layer: inputs and outputs of the products, inside of norms and activation."""
    number, on_gpu = BYTES[settings.precision.compute], settings.on_gpu
    queries, values = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    # Queries, output of attention, and on a CPU its runs laid end to end; fp32 sums of the softmax.
    attention = number * queries * (2 if on_gpu else 3) + 4 * shape.heads
    beside = 0 if on_gpu and work.masks else 1  # keys and values before they are laid behind the shared beginning
    shared = 1 if work.masks or on_gpu else 0
    keys = 2 * number * values * (beside * work.tokens + shared * work.keys)
    feed_forward = number * shape.feed_forward * (4 if shape.gated else 2)
    masks = 0.0 if on_gpu else number * work.masks
    return work.tokens * (_norms(shape, settings) + attention + feed_forward) + keys + masks


def _norms(shape: Shape, settings: Settings) -> float:
    """Of both norms, per token: input in fp32, normed, and as the layers after it take it."""
    number = BYTES[settings.precision.compute]
    if number == 4:
        return 2 * 12 * shape.width
    if _casts(settings):  # autocast makes a copy for each of the five linear layers behind the norms
        return (2 * 8 + 5 * 2) * shape.width
    return 2 * 8 * shape.width


def _casts(settings: Settings) -> bool:
    """Whether autocast makes low-precision copies of fp32 weights; sharded modes gather them in low precision."""
    low = BYTES[settings.precision.compute] < BYTES[settings.precision.parameters]
    return low and settings.fsdp.mode not in SHARDED


def _loss(shape: Shape, work: Work, settings: Settings) -> float:
    """Logits of a chunk (twice for the moment, in fp32), the head's gradient, hidden states and their gradient."""
    number = BYTES[settings.precision.compute]
    positions = min(work.supervised, settings.train.loss_chunk)
    logits = positions * shape.vocabulary * (2 * 4 + (number if number < 4 else 0))
    frozen = settings.train.adapter != "none"
    head = 0 if frozen else shape.embedding * (2 * 4)
    return logits + head + 2 * number * work.supervised * shape.width


def _gathered(shape: Shape, settings: Settings) -> float:
    """Whole parameters for the moment: two layers and the ends, or (shard_grad_op) all; gradients not yet exchanged."""
    number = min(BYTES[settings.precision.compute], BYTES[settings.precision.parameters])
    whole = shape.parameters if settings.fsdp.mode == "shard_grad_op" else 2 * shape.layer_matrices + shape.ends
    return number * whole + 4.0 * (shape.layer_matrices + shape.ends)


def _copies(shape: Shape, settings: Settings) -> float:
    """A frozen base in 4 bits is unpacked layer by layer, and again in the backward pass."""
    return 2.0 * shape.matrices if _casts(settings) and settings.train.adapter != "qlora" else 0.0


def told(found: Memory) -> str:
    """The parts in GiB, largest first; what is below a percent is left out."""
    return listed(found.parts())


def listed(parts: dict[str, float]) -> str:
    """Parts in GiB, without what is below a percent."""
    total = sum(parts.values())
    return ", ".join(f"{name} {gib(size)}" for name, size in parts.items() if size > 0.01 * total)


def gib(size: float) -> str:
    """Bytes as GiB, in three digits."""
    return f"{size / GIB:.0f}" if size >= 999.5 * GIB else f"{size / GIB:.3g}"
