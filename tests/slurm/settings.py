"""What a cluster of tests/slurm is made of: its settings, and the configuration files that they become."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

MARK = "# written by tests/slurm"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """port: of slurmctld; slurmdbd's is the next, nodes have port + 11 and on. Times are seconds, memory is MiB.

    cpus: of each node, claimed whatever the machine has, so that cpus * nodes one-CPU jobs run side by side. gpus: of
    each node, links to /dev/null. grace: between a preemption's warning and its end. min_job_age: how long squeue knows
    an ended job. cred_expire: also how long a requeued job waits (SLURM's default is 120). extra: lines of slurm.conf.
    """

    root: str
    port: int
    dbd: bool
    nodes: int = 4
    cpus: int = 2
    gpus: int = 8
    gpu_type: str = "a100"
    memory_mib: int = 512_000
    grace: int = 30
    slurmd_timeout: int = 10
    message_timeout: int = 10
    kill_wait: int = 5
    min_job_age: int = 3600
    max_array_size: int = 1001
    cred_expire: int = 5
    namespaces: bool = True
    extra: str = ""

    @property
    def names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]


# CommunicationParameters: everything binds to what the host's own name resolves to, which the private hosts file makes
#   127.0.0.1, instead of to all addresses.
# AccountingStoragePass is the munge socket: without it slurmctld asks slurmdbd through the system's munge and ends.
# config_overrides lets a small machine claim more CPUs and memory than it has; without DefMemPerCPU a job takes a
#   node's whole memory and the next one waits.
# linuxproc and task/none need no cgroups.
SLURM_CONF = """\
{MARK}
ClusterName=alpaca
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire={cred_expire}
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
{accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_per_cpu}
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/%n.log
SlurmctldDebug=info
SlurmdDebug=info
SlurmctldTimeout=10
SlurmdTimeout={slurmd_timeout}
MessageTimeout={message_timeout}
KillWait={kill_wait}
MinJobAge={min_job_age}
MaxArraySize={max_array_size}
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=node[1-{nodes}] NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] CPUs={cpus} Boards=1 SocketsPerBoard=1 \
CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory_mib} {gres} State=UNKNOWN
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=dev Default=YES PriorityTier=10 PreemptMode=off
PartitionName=low PriorityTier=1 PreemptMode=requeue GraceTime={grace}
PartitionName=high PriorityTier=100 PreemptMode=off
{extra}
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5"""

NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none"""

SLURMDBD_CONF = """\
{MARK}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CommunicationParameters=NoInAddrAny
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser={user}
DebugLevel=info
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm_acct
"""

FOLDERS = ("etc", "munge", "state", "log", "run", "dev", "db", "spool")


def write(settings: Settings, user: str, version: tuple[int, int]) -> None:
    """Creates the folders and files below root. version: of SLURM, e.g. (22, 5)."""
    root = Path(settings.root)
    for folder in (*FOLDERS, *(f"spool/{name}" for name in settings.names)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    etc, values = root / "etc", _values(settings, user)
    (etc / "slurm.conf").write_text(SLURM_CONF.format(**values))
    (etc / "gres.conf").write_text(_gpus(settings))
    (etc / "hosts").write_text(_hosts(settings))
    if version >= (23, 11):  # 22.05 has no such value and needs no file
        (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    if settings.dbd:
        private = etc / "slurmdbd.conf"
        private.touch(mode=0o600)  # slurmdbd refuses a file that others can read
        private.write_text(SLURMDBD_CONF.format(**values))


def _values(settings: Settings, user: str) -> dict[str, object]:
    values: dict[str, object] = {
        **vars(settings),
        "MARK": MARK,
        "user": user,
        "dbd_port": settings.port + 1,
        "first_port": settings.port + 11,
        "last_port": settings.port + 10 + settings.nodes,
        "memory_per_cpu": settings.memory_mib // settings.cpus // 4,
        "gres": f"Gres=gpu:{settings.gpu_type}:{settings.gpus}" if settings.gpus else "",
    }
    values["accounting"] = (ACCOUNTING if settings.dbd else NO_ACCOUNTING).format(**values)
    return values


def _gpus(settings: Settings) -> str:
    """The lines of gres.conf; a `File` must be a character device or no CUDA_VISIBLE_DEVICES is handed out."""
    if not settings.gpus:
        return ""
    folder = Path(settings.root) / "dev"
    for number in range(settings.gpus):
        link = folder / f"nvidia{number}"
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    files = f"{folder}/nvidia[0-{settings.gpus - 1}]"
    return f"NodeName=node[1-{settings.nodes}] AutoDetect=off Name=gpu Type={settings.gpu_type} File={files}\n"


def _hosts(settings: Settings) -> str:
    """The machine's hosts file, with this host and every node at 127.0.0.1."""
    kept = [line for line in Path("/etc/hosts").read_text().splitlines() if not line.startswith("127.")]
    nodes = [f"127.0.0.1 {name}" for name in settings.names]
    return "\n".join([f"127.0.0.1 localhost {socket.gethostname()}", *nodes, *kept, ""])
