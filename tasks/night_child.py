"""One run of a night in a process of its own: `python -m tasks.night_child OWNER_FD FLOW_RUN_ID`.

It executes a flow run as a worker would. When its night dies, however that happens, the pipe they share
closes and this process ends with all it started, so that no run goes on that no night knows of.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Execute the run that is named."""
    owner, flow_run_id = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    sys.argv = ["prefect.engine", flow_run_id]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _end_with(owner: int) -> None:
    os.read(owner, 1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
