"""Commands in forked processes of one group, killed after a while."""

import os
import signal
import socket
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_S = 1800.0


@dataclass(frozen=True)
class Process:
    """One process of a command."""

    main: Callable[[list[str]], None]
    args: list[str]
    environment: dict[str, str] = field(default_factory=dict)


class Case(ABC):
    """Something that is killed and goes on."""

    folder: Path
    """Its own, for all runs."""

    @abstractmethod
    def begin(self, name: str) -> None:
        """Start anew in a folder of this name."""

    @abstractmethod
    def processes(self) -> list[Process]:
        """The command that starts, or goes on."""

    @abstractmethod
    def keep_reference(self) -> None:
        """Remember what an uninterrupted run left."""

    @abstractmethod
    def wrong(self, *, ended: bool) -> list[str]:
        """What is wrong with the files that are there."""

    @abstractmethod
    def state(self) -> str:
        """What is there, in words."""

    def complete(self) -> bool:
        """Whether there is nothing left to go on with, though it was killed."""
        return False


def pair(main: Callable[[list[str]], None], args: list[str]) -> list[Process]:
    """Two processes as Lightning's launcher starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return [
        Process(main, args, {**shared, "NODE_RANK": "0", "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]


def run(
    processes: list[Process], log: Path, kill_at_s: float | None
) -> tuple[int | None, float]:
    """Run a command's processes, and kill them when they have worked for a while.

    Args:
        processes: In one group.
        log: What they print.
        kill_at_s: Seconds of processor time of all of them, so that a busy machine
            does not move every kill to the beginning; None for never.

    Returns:
        The exit code, None if they were killed, and the processor time.
    """
    log.unlink(missing_ok=True)
    leader = os.fork()
    if leader == 0:
        os.setpgid(0, 0)
        others = [pid for process in processes[1:] if (pid := _forked(process, log))]
        code = _called(processes[0], log)
        for pid in others:
            code = code or os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(code)
    worked_s, deadline = 0.0, time.monotonic() + LONGEST_S
    while kill_at_s is None or worked_s < kill_at_s:
        pid, status, used = os.wait4(leader, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        worked_s = sum(seconds for _, seconds in _members(leader))
        if time.monotonic() > deadline:
            os.killpg(leader, signal.SIGKILL)
            raise TimeoutError(log.read_text())
        time.sleep(0.01)
    os.killpg(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    while any(alive for alive, _ in _members(leader)):
        time.sleep(0.01)
    return None, worked_s


def _forked(process: Process, log: Path) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(_called(process, log))
    return pid


def _called(process: Process, log: Path) -> int:
    """Exit code of a command line in this process, its output in the log."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(process.environment)
    code = 0
    try:
        process.main(process.args)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _members(group: int) -> Iterator[tuple[bool, float]]:
    """Of each process of a group: whether it is alive, and its processor time.

    Whoever adopts those that are killed reaps them.
    """
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks = sum(map(int, fields[11:15]))
            yield fields[0] != "Z", ticks / os.sysconf("SC_CLK_TCK")
