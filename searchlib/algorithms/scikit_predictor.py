"""Predictors from scikit-learn: forests, and a Gaussian process with a length scale per feature."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.predictor import FittedPredictor, Predictor
from searchlib.arguments import check_field, one_of, whole_number
from searchlib.errors import MissingDependency

__all__ = ["ScikitPredictor"]

_MODELS = ("extra trees", "forest", "gaussian process")


@final
@dataclass(frozen=True)
class ScikitPredictor(Predictor):
    """A regression model of scikit-learn (Pedregosa et al., JMLR 12, 2011) on the values' ranks.

    ``"forest"`` (Breiman 2001) and ``"extra trees"`` (Geurts, Ernst and Wehenkel 2006) suit features with thresholds
    and a thousand candidates; they cannot look beyond what they have seen, so on real genes prefer
    :class:`GaussianProcess`. ``"gaussian process"`` learns a length scale for every feature, which takes seconds.

    Arguments:
        model: ``"forest"``, ``"extra trees"`` or ``"gaussian process"`` (Matérn 5/2 kernel).
        trees: number of trees of a forest.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(-1, 1, (60, 2))
        >>> fitted = ScikitPredictor("forest").fit(x, x[:, 0], rng)  # needs scikit-learn
        >>> bool(np.diff(fitted.predict(np.array([[-0.5, 0.0], [0.5, 0.0]])))[0] > 0)
        True
    """

    model: str = "extra trees"
    trees: int = 100

    def __post_init__(self) -> None:
        check_field(self, "model", one_of, _MODELS)
        check_field(self, "trees", whole_number, 1)

    def check(self, features: int) -> None:
        """Any number of features will do.

        Raises:
            MissingDependency: scikit-learn is not installed.
        """
        del features
        try:
            import sklearn  # noqa: F401
        except ImportError as error:
            raise MissingDependency(
                "ScikitPredictor needs scikit-learn: pip install 'searchlib[predictors]'"
            ) from error

    def fit(
        self, features: NDArray[np.float64], values: NDArray[np.float64], rng: np.random.Generator
    ) -> FittedPredictor:
        """Learn to rank candidates."""
        self.check(features.shape[1])
        # Equal values have equal ranks.
        ranks = np.searchsorted(np.sort(values), values).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # length scales at a bound are no news to anyone
            fitted: FittedPredictor = self._pipeline(features.shape[1], rng).fit(features, ranks)
        return fitted

    def _pipeline(self, features: int, rng: np.random.Generator) -> Any:
        seed = int(rng.integers(2**31))
        if self.model == "gaussian process":
            from sklearn.gaussian_process import GaussianProcessRegressor
            from sklearn.gaussian_process.kernels import Matern, WhiteKernel
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            kernel = Matern(np.full(features, max(1.0, features) ** 0.5), nu=2.5) + WhiteKernel(0.1, (1e-6, 1.0))
            process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
            return make_pipeline(StandardScaler(), process)
        from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

        kind = RandomForestRegressor if self.model == "forest" else ExtraTreesRegressor
        return kind(self.trees, min_samples_leaf=2, max_features=0.5, random_state=seed, n_jobs=1)
