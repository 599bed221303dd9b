"""A SLURM cluster on this machine, for tests and rehearsal: the real daemons, fake GPUs, no systemd, no cgroups.

    python -m tests.slurm.cluster start|stop|status|env|node-down N|node-up N [--root DIR]

munged with a socket of its own, mariadbd and slurmdbd where accounting is wanted, slurmctld, and a slurmd for every
node, each in its own UTS and mount namespace, so that `hostname` says node1 and the names of nodes resolve inside jobs.
All of it listens on 127.0.0.1 and lies below one folder. Works as root, and as any user whom the kernel lets create
user namespaces. Nothing is installed; what is missing is named. Only what was started here is ever signalled.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from alpaca.errors import UserError
from tests.slurm import processes
from tests.slurm.processes import until
from tests.slurm.settings import FOLDERS, Settings, write

PROJECT = Path(__file__).resolve().parents[2]
PATH = f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"
PACKAGES = {
    "munged": "munge", "mungekey": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client",
    "slurmdbd": "slurmdbd", "mariadbd": "mariadb-server-core",
}  # fmt: skip
ACCOUNTING = {"slurmdbd", "mariadbd"}
DAEMONS = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "sackd"}
LONGEST_ROOT = 70  # characters: the path of a unix socket below it must stay under 108


class ClusterError(UserError):
    """The cluster cannot be started or stopped, or a command on it failed."""


def default_root() -> Path:
    """Where `make slurm-up` keeps its cluster: one for each user."""
    return Path(tempfile.gettempdir()) / f"alpaca-slurm-{os.getuid()}"


def missing(*, dbd: bool) -> str:
    """The sentence that names what is not installed and the line that installs it; empty when all is there."""
    wanted = [name for name in PACKAGES if dbd or name not in ACCOUNTING]
    lacking = [name for name in wanted if shutil.which(name, path=PATH) is None]
    if not lacking:
        return ""
    packages = " ".join(dict.fromkeys(PACKAGES[name] for name in wanted))
    return f"SLURM is not installed here ({', '.join(lacking)}): apt-get install --no-install-recommends {packages}"


class Cluster:
    """Nodes node1, node2, ..., partitions dev (default), low (preempted and requeued by the others) and high."""

    def __init__(self, root: Path | str, port: int, *, dbd: bool, **options: Any) -> None:
        """options: of `Settings`. Raises ClusterError for a root that SLURM's sockets or munge cannot use."""
        self.root = Path(root)
        if not self.root.is_absolute() or len(str(root)) > LONGEST_ROOT or re.search(r"\s", str(root)):
            raise ClusterError(
                what=f"{root} is not an absolute path of at most {LONGEST_ROOT} characters without blanks",
                where="--root",
                remedy="unix sockets lie below it; take a short one, for example below /tmp",
            )
        self.settings = Settings(root=str(root), port=port, dbd=dbd, **options)
        self._database: subprocess.Popen[bytes] | None = None

    @classmethod
    def at(cls, root: Path | str) -> Cluster:
        """The cluster that was started there. Raises ClusterError when none was."""
        try:
            settings = json.loads((Path(root) / "settings.json").read_text())
        except FileNotFoundError:
            raise ClusterError(what="no cluster was started here", where=str(root), remedy="make slurm-up") from None
        return cls(**settings)

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    def env(self) -> dict[str, str]:
        """What sbatch, squeue, submitit ... need in their environment to find this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    # -- starting and stopping

    def start(self) -> None:
        """Starts what does not run yet and returns with every node idle; 1-6 s. Raises ClusterError."""
        lacking = missing(dbd=self.settings.dbd)
        if lacking:
            raise ClusterError(what=lacking)
        if not self._pid("slurmctld"):
            self._configure()
        self._start_munged()
        if self.settings.dbd:
            self._start_accounting()
        self._start_controller()
        for name in self.settings.names:
            self._start_node(name)
        if not until(lambda: not self._unready(), 30):
            raise self._failed("slurmctld", f"nodes did not come up: {self.node_states()}")

    def stop(self, purge: bool = True) -> None:
        """Ends every job and daemon; purge: removes what start made. Does nothing where nothing is."""
        if not purge and self._pid("slurmctld"):
            self._cancel_all()  # else they would be requeued at the next start
        pids = [pid for name in self.settings.names if (pid := self._pid(name))]
        processes.kill(pids)
        processes.kill_all(lambda: processes.of_jobs(self.conf, self.settings.names))
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            pid = self._pid(name)
            if pid and not processes.end(pid):
                raise ClusterError(what=f"{name} (pid {pid}) does not end", where=str(self.root))
        processes.kill_all(self.daemons)
        if self._database is not None:
            self._database.wait(timeout=10)
            self._database = None
        if purge:
            self._purge()

    def restart_controller(self, crash: bool = False) -> None:
        """Ends slurmctld (crash: by SIGKILL) and starts it again; running jobs go on meanwhile."""
        pid = self._pid("slurmctld")
        if pid and not processes.end(pid, patience=0 if crash else 15):
            raise ClusterError(what=f"slurmctld (pid {pid}) does not end", where=str(self.root))
        self._start_controller()

    def node_down(self, number: int, announce: bool = False) -> None:
        """A node that loses its power: kills its slurmd and all that runs there.

        slurmctld notices by itself within 2-3 `slurmd_timeout`; announce: it is told at once.
        """
        name = self._node(number)
        pid = self._pid(name)
        processes.kill([pid] if pid else [])
        if not processes.kill_all(lambda: processes.of_jobs(self.conf, [name])):
            raise ClusterError(what=f"processes of {name} do not end", where=str(self.root))
        until(lambda: not pid or processes.gone(pid), 5)
        self._pidfile(name).unlink(missing_ok=True)
        if announce:
            self.scontrol("update", f"nodename={name}", "state=down", "reason=power")

    def node_up(self, number: int) -> None:
        """The node comes back, empty, and returns with it ready for jobs."""
        name = self._node(number)
        self._start_node(name)
        if not until(lambda: name not in self._unready(), 30):
            raise self._failed(name, f"it did not come back: {self.node_states()}")

    # -- asking

    def run(self, *command: str, timeout: float = 60, env: Mapping[str, str] | None = None) -> str:
        """What a command says on stdout in this cluster's environment. Raises ClusterError with its stderr."""
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout, env=self._environment(env or {})
        )
        if done.returncode:
            raise ClusterError(what=f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def scontrol(self, *arguments: str) -> str:
        return self.run("scontrol", *arguments)

    def sbatch(self, *arguments: str) -> str:
        """Submits; the number of the job."""
        return self.run("sbatch", "--parsable", *arguments).partition(";")[0]

    def states(self, job: str) -> dict[str, str]:
        """State of every element of a job by its name, e.g. {"7_0": "RUNNING"}; empty when slurmctld forgot it."""
        try:
            text = self.run("squeue", "--states=all", "--array", "--noheader", f"--jobs={job}", "--format=%i|%T")
        except ClusterError as error:
            if "Invalid job id" in str(error):
                return {}
            raise
        return dict(line.split("|", 1) for line in text.splitlines())

    def wait_for(self, job: str, *states: str, timeout: float = 60) -> dict[str, str]:
        """Returns when every element of the job is in one of the states; else ClusterError says what they are."""
        seen: dict[str, str] = {}

        def reached() -> bool:
            seen.clear()
            seen.update(self.states(job))
            return bool(seen) and set(seen.values()) <= set(states)

        if not until(reached, timeout, pause=0.2):
            raise self._failed("slurmctld", f"job {job} is {seen} and not {'/'.join(states)} after {timeout:g} s")
        return seen

    def node_states(self) -> dict[str, str]:
        """State of every node, with sinfo's marks, e.g. "idle", "down*" (does not answer)."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=dev", "--format=%N|%T").splitlines()
        return dict(line.split("|", 1) for line in lines)

    def daemons(self) -> list[int]:
        """Every live daemon of this cluster, also those that lost their pid files."""
        return processes.belonging(self.conf, DAEMONS)

    def status(self) -> dict[str, int | None]:
        """The pid of every daemon there should be."""
        accounting = ["mariadbd", "slurmdbd"] if self.settings.dbd else []
        return {name: self._pid(name) for name in ["munged", *accounting, "slurmctld", *self.settings.names]}

    # -- the daemons

    def _configure(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)  # munge refuses a socket that others cannot reach
        self.settings = replace(self.settings, namespaces=_namespaces_work())
        numbers = [int(number) for number in re.findall(r"\d+", self.run("slurmctld", "-V"))[:2]]
        (self.root / "settings.json").write_text(json.dumps(asdict(self.settings)))
        write(self.settings, getpass.getuser(), (numbers[0], numbers[1]))
        if not self.settings.namespaces and not _resolves_here(socket.gethostname()):
            host = socket.gethostname()
            raise ClusterError(
                what=f"the host name {host} does not resolve to 127.x, and the kernel refuses namespaces",
                remedy=f"as root: echo '127.0.0.1 {host}' >> /etc/hosts",
            )

    def _start_munged(self) -> None:
        if self._pid("munged"):
            return
        folder = self.root / "munge"
        if not (folder / "key").exists():
            self.run("mungekey", "--create", f"--keyfile={folder / 'key'}")
        for left in ("socket", "socket.lock"):
            (folder / left).unlink(missing_ok=True)
        files = [f"--{what}-file={folder / what}" for what in ("key", "pid", "log", "seed")]
        self._daemon("munged", *files, f"--socket={folder / 'socket'}", "--origin=127.0.0.1", "--num-threads=4")
        self._answers("munged", ["munge", "-S", str(folder / "socket"), "-n"])

    def _start_accounting(self) -> None:
        if not self._pid("mariadbd"):
            self._start_database()
        if not self._pid("slurmdbd"):
            self._daemon("slurmdbd", env={"MYSQL_UNIX_PORT": str(self.root / "db" / "socket")})
            self._answers("slurmdbd", ["sacctmgr", "-n", "-i", "list", "cluster"])
        if not self.run("sacctmgr", "-n", "list", "cluster", "cluster=alpaca", "format=cluster"):
            self.run("sacctmgr", "-i", "add", "cluster", "alpaca")

    def _start_database(self) -> None:
        """No TCP, no users (the socket's folder is private), no tables to install, small buffers."""
        folder, log = self.root / "db", self.root / "log" / "mariadbd.log"
        folder.chmod(0o700)
        (folder / "data").mkdir(exist_ok=True)
        options = [
            "--no-defaults", f"--user={getpass.getuser()}", f"--datadir={folder / 'data'}",
            f"--socket={folder / 'socket'}", f"--pid-file={self._pidfile('mariadbd')}", "--skip-networking",
            "--skip-grant-tables", "--skip-log-bin", "--performance-schema=OFF", "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900", f"--log-error={log}",
        ]  # fmt: skip
        with log.with_suffix(".out").open("ab") as sink:
            database = subprocess.Popen(
                [_program("mariadbd"), *options], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env=self._environment({}), start_new_session=True,
            )  # fmt: skip
        self._database = database
        ready = (folder / "socket").exists
        until(lambda: (self._pid("mariadbd") and ready()) or database.poll() is not None, 30)
        if not ready() or database.poll() is not None:
            raise self._failed("mariadbd", "it did not start")

    def _start_controller(self) -> None:
        if not self._pid("slurmctld"):
            self._daemon("slurmctld")
            until(lambda: self._pid("slurmctld"), 10)
        self._answers("slurmctld", ["scontrol", "show", "config"])  # `scontrol ping` says DOWN with status 0

    def _start_node(self, name: str) -> None:
        if self._pid(name):
            return
        self._pidfile(name).unlink(missing_ok=True)
        self._daemon("slurmd", "-N", name, env={processes.NODE: name}, host=name)
        if not until(lambda: self._pid(name), 10):
            raise self._failed(name, "it did not start")

    def _daemon(self, program: str, *arguments: str, env: Mapping[str, str] | None = None, host: str = "") -> None:
        """Starts a program that goes into the background by itself, with the private hosts file as /etc/hosts."""
        command = [_program(program), *arguments]
        # munged needs no hosts, and in an ordinary user's namespace /tmp is not root's, which it calls insecure.
        if self.settings.namespaces and program != "munged":
            script = 'mount --bind "$0" /etc/hosts && { [ -z "$1" ] || hostname "$1"; } && shift && exec "$@"'
            command = [*_unshare(), "sh", "-c", script, str(self.root / "etc" / "hosts"), host, *command]
        # A file and no pipe: the daemon keeps it open, and a pipe would be read until the daemon ends.
        with (self.root / "log" / f"{host or program}.out").open("ab") as sink:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, check=False, timeout=60,
                env=self._environment(env or {}), cwd=self.root,
            )  # fmt: skip
        if done.returncode:
            raise self._failed(host or program, f"it did not start (status {done.returncode})")

    def _answers(self, name: str, question: Sequence[str]) -> None:
        def answered() -> bool:
            try:
                self.run(*question)
            except ClusterError:
                return False
            return True

        if not until(answered, 30):
            raise self._failed(name, "it does not answer")

    # -- small things

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """This process's, without what another cluster's job may have left in it."""
        kept = {key: value for key, value in os.environ.items() if not foreign(key)}
        return {**kept, "PATH": PATH, **self.env(), **more}

    def _pidfile(self, name: str) -> Path:
        return self.root / ("munge/pid" if name == "munged" else f"run/{name}.pid")

    def _pid(self, name: str) -> int | None:
        program = "slurmd" if name in self.settings.names else name
        return processes.pid_in(self._pidfile(name), program, self.conf)

    def _node(self, number: int) -> str:
        if not 1 <= number <= self.settings.nodes:
            raise ClusterError(what=f"there is no node {number}", remedy=f"nodes are 1 to {self.settings.nodes}")
        return f"node{number}"

    def _unready(self) -> list[str]:
        """Nodes that take no job: not registered, down, or (a mark on the state) not answering."""
        return [name for name, state in self.node_states().items() if state not in {"idle", "mixed", "allocated"}]

    def _cancel_all(self) -> None:
        self.run("scancel", "--quiet", f"--user={getpass.getuser()}")
        until(lambda: not self.run("squeue", "--noheader", "--states=PD,R,CG,S"), 12)

    def _purge(self) -> None:
        """Removes what start made, and the root when nothing else is in it."""
        if not (self.root / "settings.json").exists():
            return
        for folder in FOLDERS:
            shutil.rmtree(self.root / folder, ignore_errors=True)
        (self.root / "settings.json").unlink()
        if not any(self.root.iterdir()):
            self.root.rmdir()

    def _failed(self, name: str, what: str) -> ClusterError:
        """The error of a daemon, with the end of what it wrote."""
        logs = [self.root / "munge" / "log"] if name == "munged" else []
        logs += [self.root / "log" / f"{name}{suffix}" for suffix in (".log", ".out")]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-12:]]
        return ClusterError(what="\n    ".join([what, *lines]), where=f"{self.root}: {name}")


def foreign(key: str) -> bool:
    """A variable of a SLURM job or of sbatch's defaults, which would lead a test astray."""
    return key.startswith(("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "SCANCEL_"))


def _program(name: str) -> str:
    return shutil.which(name, path=PATH) or name


def _unshare() -> list[str]:
    user = [] if os.getuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", "--mount", "--uts", "--propagation", "private", *user]


def _namespaces_work() -> bool:
    trial = [*_unshare(), "sh", "-c", "hostname trial && mount --bind /etc/passwd /etc/hosts"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def _resolves_here(host: str) -> bool:
    try:
        return socket.gethostbyname(host).startswith("127.")
    except OSError:
        return False


# -- a cluster for as long as a block


def free_ports(nodes: int = 16) -> tuple[int, socket.socket]:
    """The first of a block of free ports, and the socket whose port (first + 9) reserves the block until it is closed.

    Processes that look side by side find different blocks; all lie below the ports of outgoing connections.
    """
    width, first, last = 40, 20_000, 32_000
    blocks = (last - first) // width
    for offset in range(blocks):
        port = first + (os.getpid() + offset) % blocks * width
        with ExitStack() as stack:
            try:
                reservation = stack.enter_context(_bound(port + 9))
                for number in (port, port + 1, *range(port + 11, port + 11 + nodes)):
                    _bound(number).close()
            except OSError:
                continue
            stack.pop_all()
            return port, reservation
    raise ClusterError(what=f"no {nodes + 3} free ports together between {first} and {last}")


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound


@contextmanager
def temporary(*, dbd: bool, **options: Any) -> Iterator[Cluster]:
    """A started cluster below /tmp that is gone after the block, also when this process is killed inside it."""
    root = Path(tempfile.mkdtemp(prefix="alpaca-slurm-", dir="/tmp"))
    port, reservation = free_ports()
    command = [sys.executable, "-m", "tests.slurm.cluster", "stop-after-stdin", f"--root={root}"]
    # Sees the end of its stdin when this process is gone, however it went; Ctrl-C spares it in a session of its own.
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT, start_new_session=True)
    cluster = Cluster(root, port, dbd=dbd, **options)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop(purge=True)
        shutil.rmtree(root, ignore_errors=True)
        guard.communicate(timeout=60)
        reservation.close()


# -- the command


def _start(given: argparse.Namespace) -> int:
    try:
        cluster = Cluster.at(given.root)
        print(f"found at {given.root}: its settings are kept", file=sys.stderr)
    except ClusterError:
        port, reservation = (given.port, None) if given.port else free_ports(given.nodes)
        options = {key: getattr(given, key) for key in ("nodes", "cpus", "gpus")}
        cluster = Cluster(given.root, port, dbd=not given.no_dbd, **options)
        if reservation:
            reservation.close()
    cluster.start()
    settings = cluster.settings
    accounting = "with accounting" if settings.dbd else "without accounting"
    print(f"up: {settings.nodes} nodes of {settings.cpus} CPUs and {settings.gpus} fake GPUs, {accounting}; to use it:")
    return _env(given)


def _stop(given: argparse.Namespace) -> int:
    if (given.root / "settings.json").exists():
        Cluster.at(given.root).stop(purge=not given.keep)
        print(f"stopped {given.root}")
    else:
        print(f"nothing runs at {given.root}")
    return 0


def _stop_after_stdin(given: argparse.Namespace) -> int:
    sys.stdin.read()
    if (given.root / "settings.json").exists():
        Cluster.at(given.root).stop(purge=True)
    with suppress(OSError):  # `temporary` made it, and perhaps nothing was started in it yet
        given.root.rmdir()
    return 0


def _status(given: argparse.Namespace) -> int:
    """Status 0 when all is up, 1 when a part is, 3 when nothing is."""
    cluster = Cluster.at(given.root)
    pids = cluster.status()
    for name, pid in pids.items():
        print(f"{name:<10} {f'up    pid {pid}' if pid else 'down'}")
    if all(pids.values()):
        print(cluster.run("sinfo"))
        return 0
    return 1 if any(pids.values()) else 3


def _env(given: argparse.Namespace) -> int:
    for key, value in Cluster.at(given.root).env().items():
        print(f"export {key}={value}")
    return 0


def _node_down(given: argparse.Namespace) -> int:
    Cluster.at(given.root).node_down(given.node)
    return 0


def _node_up(given: argparse.Namespace) -> int:
    Cluster.at(given.root).node_up(given.node)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "start": _start, "stop": _stop, "status": _status, "env": _env, "node-down": _node_down, "node-up": _node_up,
    "stop-after-stdin": _stop_after_stdin,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name) for name in COMMANDS}
    for each in parsers.values():
        each.add_argument("--root", type=Path, default=default_root(), help="its folder (default %(default)s)")
    for name in ("node-down", "node-up"):
        parsers[name].add_argument("node", type=int)
    parsers["stop"].add_argument("--keep", action="store_true", help="keep the state: job numbers, accounting, logs")
    start = parsers["start"]
    start.add_argument("--port", type=int, default=0, help="of slurmctld; up to 30 above it too (default: free ones)")
    start.add_argument("--no-dbd", action="store_true", help="no accounting: sacct answers that it is disabled")
    for name, default in (("nodes", 4), ("cpus", 2), ("gpus", 8)):
        start.add_argument(f"--{name}", type=int, default=default, help="(default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        return COMMANDS[given.command](given)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    raise SystemExit(main())
