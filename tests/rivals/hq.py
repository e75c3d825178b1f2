"""HyperQueue from PyPI on the loopback interface: `true` as one job of many tasks, and how many of them
end a second. Prints `rate NUMBER` and `settings …`.

    hq.py SLOTS TASKS

The clock runs from the first task's start to that of the last one: what Python takes to build and send
the tasks does not count against it.
"""

import pathlib
import sys
import tempfile

import hyperqueue
from hyperqueue.cluster import LocalCluster, WorkerConfig


def main():
    slots, count = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with LocalCluster(str(folder / "server"), WorkerConfig(cores=slots)) as cluster:
            client = cluster.client()
            job = hyperqueue.Job(folder, max_fails=1)
            clock = ["/bin/date", "+%s.%N"]
            job.program(clock, stdout=str(folder / "first"), stderr=None)
            for _ in range(count):
                job.program(["/bin/true"], stdout=None, stderr=None)
            job.program(clock, stdout=str(folder / "last"), stderr=None)
            client.wait_for_jobs([client.submit(job)])
            took = float((folder / "last").read_text()) - float((folder / "first").read_text())
    print(f"rate {count / took:.2f}")
    print(
        f"settings HyperQueue {hyperqueue.get_version()} from PyPI, one worker of {slots} cores, no journal, no output files, {count} tasks of one job"
    )


main()
