"""Pictures and pages of finished or running searches."""

from searchlib.report.convergence import plot_convergence
from searchlib.report.page import write_report
from searchlib.report.plots import Plots
from searchlib.report.predictor_quality import plot_predictor_quality
from searchlib.report.stored_tasks import stored_tasks
from searchlib.report.watch import watch

__all__ = ["Plots", "plot_convergence", "plot_predictor_quality", "stored_tasks", "watch", "write_report"]
