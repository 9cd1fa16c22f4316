"""Where people already are: studies, searches and winners in the forms of other programs; each is loaded when used."""

from typing import TYPE_CHECKING, Any

from searchlib.errors import MissingDependency
from searchlib.lazy import lazy_names

if TYPE_CHECKING:
    from searchlib.algorithms.nevergrad_parameters import to_nevergrad
    from searchlib.exchange.mlflow_tracker import track_mlflow
    from searchlib.exchange.model_card import model_card
    from searchlib.exchange.optuna_parameters import OptunaParameters
    from searchlib.exchange.optuna_sampler import SearchlibSampler
    from searchlib.exchange.optuna_storage import to_optuna
    from searchlib.exchange.tables import history_rows, to_parquet
    from searchlib.exchange.tensorboard_tracker import track_tensorboard
    from searchlib.exchange.wandb_tracker import track_wandb

__all__ = [
    "OptunaParameters", "SearchlibSampler", "history_rows", "model_card", "to_nevergrad", "to_optuna", "to_parquet",
    "track_mlflow", "track_tensorboard", "track_wandb",
]  # fmt: skip

#: Where each name lives in the library, and the extra that installs what it needs.
_HOMES = {
    "OptunaParameters": ("exchange.optuna_parameters", "optuna"),
    "SearchlibSampler": ("exchange.optuna_sampler", "optuna"),
    "history_rows": ("exchange.tables", "report"),
    "model_card": ("exchange.model_card", "report"),
    "to_nevergrad": ("algorithms.nevergrad_parameters", "nevergrad"),
    "to_optuna": ("exchange.optuna_storage", "optuna"),
    "to_parquet": ("exchange.tables", "report"),
    "track_mlflow": ("exchange.mlflow_tracker", "mlflow"),
    "track_tensorboard": ("exchange.tensorboard_tracker", "tensorboard"),
    "track_wandb": ("exchange.wandb_tracker", "wandb"),
}

_load = lazy_names(__name__, {name: f"searchlib.{module}" for name, (module, _) in _HOMES.items()})


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library == "searchlib":
            raise
        raise MissingDependency(f"{name} needs {library}: pip install 'searchlib[{_HOMES[name][1]}]'") from error


def __dir__() -> list[str]:
    return __all__
