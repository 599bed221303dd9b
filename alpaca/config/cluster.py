"""Where stages run: this machine, or a SLURM cluster with resources per kind of stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from alpaca.config.marks import how


@dataclass(kw_only=True, slots=True)
class Cluster:
    """Where stages run."""

    kind: str = how("local", choices=("local", "debug", "slurm"))
    """local: one process per stage; debug: in this process, one after the other; slurm: jobs of a SLURM cluster."""
    parallel: int = how(2, least=1)
    """Stages running side by side (slurm: elements of one job array)."""
    threads: int = how(1, least=1)
    """CPU threads of each process."""


@dataclass(kw_only=True, slots=True)
class Resources:
    """What one kind of stage asks of SLURM; null (an empty list) takes what the cluster says for all kinds."""

    partition: str | None = how(None)
    account: str | None = how(None)
    qos: str | None = how(None)
    constraint: str | None = how(None)
    """Features a node must have (sbatch --constraint)."""
    nodes: int | None = how(None, least=1)
    """null: as many as `fsdp.world_size` processes need for a training, else 1."""
    gpus: int | None = how(None, least=0)
    """GPUs on each node; null: one for each process of a training or pretraining, else the cluster's."""
    cpus: int | None = how(None, least=1)
    """CPUs of each process (sbatch --cpus-per-task)."""
    memory_gib: float | None = how(None, least=0.1)
    """GiB on each node (sbatch --mem)."""
    minutes: int | None = how(None, least=1)
    """Time limit; a stage that meets it is saved, requeued and goes on (`cluster.max_requeues` times)."""
    container: str | None = how(None)
    """Image for srun --container-image (pyxis/enroot); another runtime: put it into cluster.python."""
    extra: list[str] = how(factory=list)
    """Further #SBATCH lines without the #SBATCH, for example "--exclude=node[3-4]"."""
    setup: list[str] = how(factory=list)
    """Shell lines before the stage, for example "module load cuda"."""


@dataclass(kw_only=True, slots=True)
class StageResources:
    """Resources of each kind of stage where they differ from the cluster's."""

    sample: Resources = field(default_factory=Resources)
    rate: Resources = field(default_factory=Resources)
    moderate: Resources = field(default_factory=Resources)
    curate: Resources = field(default_factory=Resources)
    pretrain: Resources = field(default_factory=Resources)
    train: Resources = field(default_factory=Resources)
    respond: Resources = field(default_factory=Resources)
    score: Resources = field(default_factory=Resources)
    report: Resources = field(default_factory=Resources)


@dataclass(kw_only=True, slots=True)
class SlurmCluster(Cluster):
    """A SLURM cluster. The first fields hold for every kind of stage unless `stages` says otherwise."""

    kind: str = how("slurm", choices=("slurm",))
    partition: str | None = how(None)
    account: str | None = how(None)
    qos: str | None = how(None)
    constraint: str | None = how(None)
    gpus: int = how(0, least=0)
    """GPUs on each node for stages that neither train nor say otherwise."""
    cpus: int = how(4, least=1)
    """CPUs of each process."""
    memory_gib: float = how(16.0, least=0.1)
    """GiB on each node."""
    minutes: int = how(120, least=1)
    container: str | None = how(None)
    extra: list[str] = how(factory=list)
    setup: list[str] = how(factory=list)
    stages: StageResources = field(default_factory=StageResources)
    gpus_per_node: int = how(8, least=0)
    """GPUs that a node has; 0: a site without GPUs, where no stage asks for one."""
    processes_per_node: int | None = how(None, least=1)
    """Processes of one training on one node; null: one for each GPU, without GPUs all of them."""
    together: list[str] = how(factory=lambda: ["score"])
    """Kinds of stages that run in the job of their only parent, right after it, instead of queueing once more."""
    signal_seconds: int = how(90, least=1)
    """How long before the time limit (or a preemption) a stage is warned, to save itself."""
    max_requeues: int = how(10, least=0)
    """How often SLURM may start one stage again, for whatever reason, before it counts as failed."""
    kill_on_invalid_dep: bool = how(True)
    """SLURM cancels jobs whose parents failed; false where a site forbids it: then `reap` and the failing job do."""
    max_array_size: int | None = how(None, least=1)
    """Elements of one array; null: the site's MaxArraySize."""
    python: str | None = how(None)
    """The command that starts Python on a node, for example "apptainer exec --nv image.sif python"; null: this one."""
