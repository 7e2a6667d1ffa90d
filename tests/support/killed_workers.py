"""A plugin of pytest with which `-n 2 --dist loadgroup` ends after a worker was killed.

For lack of memory, say. xdist 3.8 waits for ever then: the units of the dead worker go back into
the queue with those that are done, which are sent as an empty list, and its successor gets one
test, which a worker does not start before it knows the next. The test that killed it would kill
every successor. And a process that the worker forked keeps its pipe open, so that nobody sees it
die.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController


class GroupScheduling(LoadGroupScheduling):
    """Groups of tests for workers, of which some may die."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Give back what the node has not run; returns the test that it was running, which failed.

        Raises KeyError where the node is unknown.
        """
        units = {
            scope: [test for test, complete in tests.items() if not complete]
            for scope, tests in self.assigned_work[node].items()
        }
        pending = [(scope, test) for scope, tests in units.items() for test in tests]
        crashed = None
        if pending:
            scope, crashed = pending[0]
            units[scope].remove(crashed)
        self.assigned_work[node] = {
            scope: dict.fromkeys(tests, False) for scope, tests in units.items() if tests
        }
        super().remove_node(node)
        return crashed

    def _reschedule(self, node: WorkerController) -> None:
        """Give a node more work: not before it has collected its tests, as a successor may be asked
        to while another reports, and what cannot be sent to one that just died is given back when
        its death is seen."""
        if node in self.registered_collections:
            with suppress(OSError):
                super()._reschedule(node)

    def schedule(self) -> None:
        """Distribute the tests; a node that comes later gets two units, as those before it."""
        late = self.collection is not None
        super().schedule()
        if late:
            super().schedule()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    """A scheduler for `--dist loadgroup`; None, which leaves it to xdist, for another one."""
    return GroupScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def open_pipes() -> dict[int, str]:
    """The pipes that are open: number of the file, and its inode."""
    inodes = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISFIFO(status.st_mode):
                inodes[int(name)] = str(status.st_ino)
    return inodes


def _leave_pipes() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for file in PIPES:
        if file > 2:
            os.dup2(null, file, inheritable=False)
    os.close(null)


PIPES = open_pipes()
"""Those of xdist, in a worker."""

if "PYTEST_XDIST_WORKER" in os.environ:
    os.register_at_fork(after_in_child=_leave_pipes)
