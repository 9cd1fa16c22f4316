"""Every exception this library raises on purpose.

::

    SearchlibError
    ├── InvalidSettings      (ValueError)    an argument that cannot be meant
    ├── InvalidCandidate     (ValueError)    rows or values that do not lie in the space
    ├── MissingOperator      (TypeError)     algorithm and space (or objective) do not fit together
    ├── MissingDependency    (ImportError)   an optional library is not installed
    ├── UnsupportedModel     (ValueError)    a model whose structure the adapter cannot handle
    ├── InvalidTell          (ValueError)    evidence that contradicts what was asked
    ├── EvaluationFailed     (RuntimeError)  too many candidates failed; carries the first traceback
    ├── WorkersLost          (RuntimeError)  a cluster has gone away in the middle of a search
    ├── CacheError           (RuntimeError)  a file that is no evaluation cache, or is damaged, or cannot be written
    └── StudyError           (RuntimeError)
        ├── StudyMismatch                    the file holds another search than the one being resumed
        ├── StudyBusy                        another process writes to the file
        └── StudyDamaged                     the file cannot be read as a study

A failed *evaluation* is not an exception: it is recorded with its traceback and the search goes on.
"""

__all__ = [
    "CacheError",
    "EvaluationFailed",
    "InvalidCandidate",
    "InvalidSettings",
    "InvalidTell",
    "MissingDependency",
    "MissingOperator",
    "SearchlibError",
    "StudyBusy",
    "StudyDamaged",
    "StudyError",
    "StudyMismatch",
    "UnsupportedModel",
    "WorkersLost",
]


class SearchlibError(Exception):
    """Base of every exception of this library."""


class InvalidSettings(SearchlibError, ValueError):
    """An argument has a value that cannot be meant; the message says which, what was expected and what came."""


class InvalidCandidate(SearchlibError, ValueError):
    """A population or a typed value does not lie in the space; the message names the first offender."""


class MissingOperator(SearchlibError, TypeError):
    """An algorithm needs something that this space or objective does not offer; the message names it."""


class MissingDependency(SearchlibError, ImportError):
    """An optional library is missing; the message names the extra that installs it."""


class UnsupportedModel(SearchlibError, ValueError):
    """The adapter cannot handle a model of this structure; the message names the module and the reason."""


class InvalidTell(SearchlibError, ValueError):
    """Evidence that does not match what was asked: wrong shapes, an id told twice, values that are not finite."""


class EvaluationFailed(SearchlibError, RuntimeError):
    """Too many candidates in a row failed; the message ends with the first traceback."""


class WorkersLost(SearchlibError, RuntimeError):
    """The workers that a search was using have gone away, all of them; what they had finished is on file."""


class CacheError(SearchlibError, RuntimeError):
    """A file cannot be used as an evaluation cache; the message says why and what to do."""


class StudyError(SearchlibError, RuntimeError):
    """A study file cannot be used as asked."""


class StudyMismatch(StudyError):
    """The study was written by another search; the message lists every setting that differs."""


class StudyBusy(StudyError):
    """Another process is writing to the study."""


class StudyDamaged(StudyError):
    """The file is not a study, or was written by a newer version, or is damaged."""
