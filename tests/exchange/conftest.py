import pytest


@pytest.fixture(autouse=True)
def quiet_optuna():
    """Optuna writes a line per trial, and is not imported for this where a test does without it."""
    import sys

    if "optuna" in sys.modules:
        sys.modules["optuna"].logging.set_verbosity(sys.modules["optuna"].logging.WARNING)
