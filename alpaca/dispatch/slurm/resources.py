"""What each kind of stage asks of SLURM, and sbatch's refusals in the words of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alpaca.config import Resources, Run, SlurmCluster, StageResources
from alpaca.errors import UserError

MEBIBYTES = 1024
WITH_GPUS = ("train", "pretrain")
KINDS = tuple(spec.name for spec in dataclasses.fields(StageResources))
REFUSALS = {
    "accounting/qos policy": ("qos", "account", "partition"),
    "account": ("account", "partition"),
    "partition": ("partition",),
    "qos": ("qos",),
    "cpu count": ("cpus",),
    "memory": ("memory_gib",),
    "node configuration": ("gpus", "cpus", "memory_gib", "nodes", "constraint", "partition"),
    "node count": ("nodes", "partition"),
    "gres": ("gpus",),
    "tres": ("gpus",),
    "feature": ("constraint",),
    "time limit": ("minutes",),
    "array": ("max_array_size",),
}
"""Words of sbatch (lower case) -> the fields of `Resources` that may have caused them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The resources of one job array, every default filled in."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: int
    tasks: int
    """Processes on each node."""
    gpus: int
    """On each node."""
    cpus: int
    """Of each process."""
    memory_gib: float
    """On each node."""
    minutes: int
    container: str | None
    extra: tuple[str, ...]
    setup: tuple[str, ...]


def asked(cluster: SlurmCluster, kind: str, processes: int = 1) -> Asked:
    """What a stage of this kind asks for that runs in so many processes."""
    own: Resources = getattr(cluster.stages, kind)
    per_node = cluster.processes_per_node or cluster.gpus_per_node or processes
    nodes = own.nodes or -(-processes // per_node)
    tasks = max(1, processes // nodes)
    return Asked(
        partition=own.partition or cluster.partition,
        account=own.account or cluster.account,
        qos=own.qos or cluster.qos,
        constraint=own.constraint or cluster.constraint,
        nodes=nodes,
        tasks=tasks,
        gpus=_gpus(cluster, kind, tasks),
        cpus=own.cpus or cluster.cpus,
        memory_gib=own.memory_gib or cluster.memory_gib,
        minutes=own.minutes or cluster.minutes,
        container=own.container or cluster.container,
        extra=(*cluster.extra, *own.extra),
        setup=(*cluster.setup, *own.setup),
    )


def _gpus(cluster: SlurmCluster, kind: str, tasks: int) -> int:
    own: int | None = getattr(cluster.stages, kind).gpus
    if own is not None:
        return own
    if cluster.gpus_per_node == 0:
        return 0
    return tasks if kind in WITH_GPUS else cluster.gpus


def problems(run: Run) -> Iterator[UserError]:
    """What cannot be asked of this cluster, whatever sbatch would say; nothing for another kind of cluster."""
    cluster = run.cluster
    if not isinstance(cluster, SlurmCluster):
        return
    processes, wanted = run.fsdp.world_size, asked(cluster, "train", run.fsdp.world_size)
    if wanted.nodes * wanted.tasks != processes:
        yield UserError(
            what=f"{processes} processes cannot be spread evenly over {wanted.nodes} nodes",
            where="fsdp.world_size",
            remedy="a multiple of the nodes (cluster.stages.train.nodes, cluster.processes_per_node, "
            f"cluster.gpus_per_node={cluster.gpus_per_node})",
        )
    for kind in KINDS:
        yield from _of_kind(cluster, kind, processes if kind == "train" else 1)


def _of_kind(cluster: SlurmCluster, kind: str, processes: int) -> Iterator[UserError]:
    found = asked(cluster, kind, processes)
    if found.gpus > cluster.gpus_per_node:
        yield UserError(
            what=f"{found.gpus} GPUs on one node, and a node has {cluster.gpus_per_node}",
            where=key(cluster, kind, "gpus"),
            remedy="ask for fewer, spread a training over more nodes, or correct cluster.gpus_per_node",
        )
    if cluster.threads > found.cpus:
        yield UserError(
            what=f"{cluster.threads} threads on {found.cpus} CPUs",
            where=key(cluster, kind, "cpus"),
            remedy="at least as many CPUs as cluster.threads",
        )
    if cluster.signal_seconds >= 60 * found.minutes:
        yield UserError(
            what=f"a warning {cluster.signal_seconds} s before a limit of {found.minutes} minute(s) comes at the start",
            where=key(cluster, kind, "minutes"),
            remedy="a longer limit, or a smaller cluster.signal_seconds",
        )
    for line in found.extra:
        if not line.startswith("--"):
            yield UserError(
                what=f"{line!r} is not an option of sbatch",
                where=key(cluster, kind, "extra"),
                remedy='write it as after #SBATCH, for example "--exclude=node3"',
            )


def key(cluster: SlurmCluster, kind: str, name: str) -> str:
    """The configuration key that decides this field for a kind of stage."""
    own = getattr(getattr(cluster.stages, kind), name, None)
    return f"cluster.stages.{kind}.{name}" if own or not hasattr(cluster, name) else f"cluster.{name}"


def parameters(wanted: Asked, cluster: SlurmCluster, kind: str) -> dict[str, Any]:
    """The parameters of `submitit.SlurmExecutor` for an array of this kind, all but name, array and dependency."""
    srun = [f"--cpus-per-task={wanted.cpus}"]  # since 22.05 srun does not take it from sbatch
    if wanted.nodes * wanted.tasks > 1:
        srun.append("--kill-on-bad-exit=1")  # else the other ranks wait for the dead one for ever
    if wanted.container:
        srun.append(f"--container-image={wanted.container}")
    found: dict[str, Any] = {
        "partition": wanted.partition,
        "account": wanted.account,
        "qos": wanted.qos,
        "constraint": wanted.constraint,
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.tasks,
        "cpus_per_task": wanted.cpus,
        "mem": f"{round(wanted.memory_gib * MEBIBYTES)}M",
        "time": wanted.minutes,
        "gpus_per_node": wanted.gpus or None,
        "signal_delay_s": cluster.signal_seconds,
        "srun_args": srun,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's own name for it is refused where sites keep a list
    }
    return {name: value for name, value in found.items() if value is not None or name == "wckey"}


def options(wanted: Asked) -> dict[str, Any]:
    """The further #SBATCH lines as name -> value (True: a flag)."""
    found: dict[str, Any] = {}
    for line in wanted.extra:
        name, separator, value = line.removeprefix("--").replace(" ", "=", 1).partition("=")
        found[name] = value if separator else True
    return found


def refusal(words: str, cluster: SlurmCluster, kind: str, wanted: Asked) -> UserError:
    """sbatch's own words with the keys that may have caused them."""
    lowered = words.lower()
    names = next((fields for told, fields in REFUSALS.items() if told in lowered), ())
    values = {name: _value(wanted, cluster, name) for name in names}
    given = {name: value for name, value in values.items() if value is not None} or values
    shown = [f"{key(cluster, kind, name)}={value}" for name, value in given.items()]
    return UserError(
        what=f"sbatch refused the jobs of kind {kind}: {words.strip()}",
        where=", ".join(shown) or "cluster",
        remedy="correct it on the command line or in its file in conf/cluster/ and run the same command again",
    )


def _value(wanted: Asked, cluster: SlurmCluster, name: str) -> Any:
    return getattr(wanted, name, getattr(cluster, name, None))
