"""Pictures and tables of finished or running searches."""

from searchlib.report.convergence import plot_convergence
from searchlib.report.predictor_quality import plot_predictor_quality

__all__ = ["plot_convergence", "plot_predictor_quality"]
