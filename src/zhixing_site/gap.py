"""What stands in a module for the names that the file of one of its definitions does not hold.

`from zhixing_site.gap import __getattr__` at a file's end gives it such names without end: a test can import them, and
is stopped with NeedsMore as soon as it does anything with one.
"""


class NeedsMore(BaseException):
    """No Exception, which a test may expect."""


touched = []  # the names that something was done with, also where what was raised was lost, as in a thread


def _refuse(gap, *_, **__):
    touched.append(gap.__name__)
    raise NeedsMore(gap.__name__)


class Gap(type):
    """The class of stand-ins. They are classes, so that `isinstance` asks them, and hold no more than a name."""

    def __getattr__(cls, name: str):
        # An AttributeError, since pytest and others look for names that most things do not have.
        raise AttributeError(f"{NeedsMore.__name__}: {cls.__name__}")


ASKED = "add radd sub rsub mul rmul truediv rtruediv pow rpow neg or ror eq ne lt le gt ge bool int float index "
ASKED += "call getitem contains iter len instancecheck subclasscheck"
for _asked in ASKED.split():
    setattr(Gap, f"__{_asked}__", _refuse)
Gap.__hash__ = type.__hash__


def __getattr__(name: str) -> Gap:
    if name.startswith("__"):
        raise AttributeError(name)
    # The module, which messages about a class name, says it as well.
    return type.__new__(Gap, name, (), {"__module__": NeedsMore.__name__})
