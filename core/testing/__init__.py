"""The test kit for plug-in authors: a cgroup that needs no root, and the contract as tests to inherit.

    from gocker.testing import ControllerContract
    from gocker_hugetlb import Hugetlb

    class TestHugetlb(ControllerContract):
        controller = Hugetlb
        good = {"2MB": "64m"}
        bad = [{"2MB": "-1"}, {"3MB": "1g"}]

runs every test of the contract with pytest, once on a tree like cgroup v1 and once on one like v2.
`NamespaceContract` does the same for a namespace handler. It needs pytest, which gocker itself does not.
"""

from __future__ import annotations

from gocker.testing.answers import ANSWERS, PARENT, Answer, whole_pages
from gocker.testing.controllers import GARBAGE, ControllerContract
from gocker.testing.fakecgroup import FakeCgroup
from gocker.testing.namespaces import HOST_SYSCTLS, FakeKernel, NamespaceContract

__all__ = [
    "ANSWERS",
    "GARBAGE",
    "HOST_SYSCTLS",
    "PARENT",
    "Answer",
    "ControllerContract",
    "FakeCgroup",
    "FakeKernel",
    "NamespaceContract",
    "whole_pages",
]
