"""Every error quickstudy raises on purpose.

    QuickstudyError
    ├── RequestError       a request that cannot be read: what is wrong and where
    ├── ConfigError        an unknown or contradictory setting
    ├── ModelError         a model that cannot be found, read or used
    ├── DataError          benchmark data that is missing, changed or malformed
    └── PracticeFailed     the unsure path gave up; the draft answers and the episode says why
        ├── NoExamples     no practice example survived verification
        ├── PracticeDiverged  the loss was not finite
        ├── BudgetSpent    the request's time budget ran out
        └── TeacherFailed  the teacher is unreachable, slow or talks nonsense

`PracticeFailed` never leaves `Improver.answer`: it becomes `Episode.fallback`.
"""


class QuickstudyError(Exception):
    """Base of all errors raised on purpose; its text says what to do next."""


class RequestError(QuickstudyError):
    """The request cannot be read."""


class ConfigError(QuickstudyError):
    """A setting is unknown, out of range or contradicts another."""


class ModelError(QuickstudyError):
    """The model cannot be found, read or used."""


class DataError(QuickstudyError):
    """Benchmark data is missing, changed or malformed."""


class PracticeFailed(QuickstudyError):  # noqa: N818 - an outcome that is recorded, not a fault
    """The unsure path cannot go on; the draft stands."""


class NoExamples(PracticeFailed):
    """No practice example survived."""


class PracticeDiverged(PracticeFailed):
    """The practice loss is not finite."""


class BudgetSpent(PracticeFailed):
    """The request's time budget is spent."""


class TeacherFailed(PracticeFailed):
    """The teacher gave nothing that can be used."""
