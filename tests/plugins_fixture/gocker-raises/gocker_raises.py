"""Fails at import by an assertion, which stevedore's failure callback never sees."""

from gocker.api import CgroupController

assert not issubclass(CgroupController, object), "the library that it wraps is not there"


class Raises(CgroupController):
    """Never reached."""
