"""Slurm: srun --container with the runtime in oci.conf, one node on loopback."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator

import pytest
from enginehost import NODE, EngineHost, Place, Ran, write_bundle

pytestmark = pytest.mark.engines
CONF = """
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={scratch}/ctld
SlurmdSpoolDir={scratch}/spool
SlurmctldPidFile={scratch}/ctld.pid
SlurmdPidFile={scratch}/slurmd.pid
SlurmctldLogFile={scratch}/ctld.txt
SlurmdLogFile={scratch}/slurmd.txt
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
InactiveLimit=0
KillWait=2
NodeName={node} NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Slurm 22.05 waits for the end of what RunTimeCreate prints, which the container holds open, so it starts none.
OCI = """
RunTimeQuery="{runtime} --root={scratch}/oci state %n.%u.%j.%s.%t"
RunTimeRun="{runtime} --root={scratch}/oci run -b %b %n.%u.%j.%s.%t"
RunTimeKill="{runtime} --root={scratch}/oci kill -a %n.%u.%j.%s.%t"
RunTimeDelete="{runtime} --root={scratch}/oci delete --force %n.%u.%j.%s.%t"
"""
Srun = Callable[..., Ran]


@pytest.fixture(scope="module")
def host(place: Place) -> Iterator[EngineHost]:
    programs = ("slurmctld", "slurmd", "srun")
    with place(*programs, package="slurmctld, slurmd or slurm-client", parents=("gocker-oci",)) as host:
        base = host.scratch
        for name in ("ctld", "spool", "oci"):
            os.mkdir(f"{base}/{name}")
        with open(f"{base}/slurm.conf", "w", encoding="utf-8") as file:
            file.write(CONF.format(scratch=base, node=NODE))
        with open(f"{base}/oci.conf", "w", encoding="utf-8") as file:
            file.write(OCI.format(scratch=base, runtime=host.runtime))
        host.env["SLURM_CONF"] = f"{base}/slurm.conf"
        host.daemon("slurmctld", "-D", "-c", ready=lambda: host.run("scontrol", "ping", code=None).code == 0)
        host.daemon(
            *("slurmd", "-D", "-c"),
            ready=lambda: "idle" in host.run("sinfo", "-h", "-o", "%t", code=None).out,
        )
        yield host
        left = [
            name
            for _, folders, files in os.walk(f"{base}/oci")
            for name in [*folders, *files]
            if NODE in name
        ]
        assert not left


@pytest.fixture
def srun(host: EngineHost) -> Srun:
    """`srun(BUNDLE, COMMAND...)` for one task."""

    def run(bundle: str, *argv: str, code: int = 0) -> Ran:
        return host.run("srun", "-n1", "--container", bundle, *argv, code=code, timeout=25)

    return run


@pytest.fixture(scope="module")
def bundle(host: EngineHost) -> str:
    path = f"{host.scratch}/bundle"
    os.mkdir(path)
    write_bundle(path, ("true",))
    return path


def test_a_job_runs_in_the_container(srun: Srun, bundle: str) -> None:
    assert srun(bundle, "hostname").out == "bundle\n"


def test_its_exit_status_is_the_jobs(srun: Srun, bundle: str) -> None:
    srun(bundle, "sh", "-c", "exit 3", code=3)


def test_slurms_variables_reach_it(srun: Srun, bundle: str) -> None:
    assert srun(bundle, "sh", "-c", "echo $SLURM_NTASKS").out == "1\n"


def test_a_cancelled_job_leaves_no_process(host: EngineHost, bundle: str) -> None:
    # Slurm's first signal is SIGTERM, which the first process of a PID namespace has to ask for.
    listens = "trap 'exit 1' TERM; sleep 61 & wait"
    job = shlex.join(["srun", "-n1", "--container", bundle, "sh", "-c", listens])
    host.run("sh", "-c", f"{job} & sleep 2; scancel -u root; wait", code=None)
    assert "sleep 61" not in host.run("ps", "-A", "-o", "args").out


@pytest.mark.usefixtures("hugepage_limits")
def test_an_annotation_reaches_an_installed_controller(host: EngineHost, srun: Srun) -> None:
    path = f"{host.scratch}/huge"
    os.mkdir(path)
    write_bundle(path, ("true",), {"dev.gocker.limit.hugetlb.2MB": "64m"})
    script = f"srun -n1 --container {path} sleep 3 & sleep 1.5; cat /proc/$(pgrep -xf 'sleep 3')/cgroup; wait"
    assert "gocker" in host.run("sh", "-c", script).out
