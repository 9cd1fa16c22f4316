"""Pictures and tables of finished or running searches."""

from searchlib.report.convergence import plot_convergence

__all__ = ["plot_convergence"]
