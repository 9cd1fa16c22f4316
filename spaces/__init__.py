"""Declared search spaces, one file per kind of choice.

===============================  ===========================================  =============================
space                            one candidate                                value
===============================  ===========================================  =============================
:class:`Binary`                  n independent yes-or-no choices              tuple of 0 and 1
:class:`Subset`                  exactly k of n                               tuple of kept indices
:class:`Categorical`             one of several options                       the option
:class:`Integer`                 a whole number within bounds                 int
:class:`Real`                    a real number within bounds                  float
:class:`Simplex`                 n shares of a whole                          tuple of floats
:class:`Affine`                  n weights that sum to one, of either sign    tuple of floats
:class:`Permutation`             an order of n items                          tuple of items
:class:`Product`                 several of these at once, by name            dict
:class:`Grouped`                 the same choice once per layer or block      tuple of the part's values
:class:`Multiset`                the same choice in slots without an order    tuple of the part's values
:class:`OneOf`                   one of several spaces, a candidate of it     name and value
:class:`Fixed`                   a part that is not to be searched             the value
:class:`Monotone`                an ascending or descending schedule          tuple of numbers
:class:`EvalSubsets`             benchmark items, with repetitions            tuple of items
:class:`ExemplarSets`            which exemplars a prompt shows               tuple of exemplar ids
:class:`ExpertSubsets`           which experts each group of layers keeps     tuple of tuples of indices
:class:`ExpertMerges`            how each group of layers merges its experts  :class:`ExpertMatrices`
:class:`CheckpointCoefficients`  how to combine the checkpoints of a run      tuple of floats, or of tuples
:class:`SolverSchedules`         solver and noise level of each sampling step :class:`SolverSchedule`
:class:`Allocation`              an option for every part, under budgets      tuple of options
:class:`AttentionConfigs`        a span rule for every attention head         :class:`AttentionPlan`
:class:`BitWidths`               bits of every weight, input and cache        :class:`BitPlan`
:class:`CurriculumTasks`         a task to train on                           tuple of floats
:class:`PolicyParameters`        the weights of a policy network              dict of arrays
===============================  ===========================================  =============================
"""

from searchlib.spaces.affine import Affine
from searchlib.spaces.allocation import Allocation
from searchlib.spaces.attention_configs import AttentionConfigs, elastic_rules
from searchlib.spaces.attention_plan import AttentionPlan
from searchlib.spaces.binary import Binary
from searchlib.spaces.bit_plan import BitPlan, SizedTensor
from searchlib.spaces.bit_widths import BitWidths
from searchlib.spaces.categorical import Categorical
from searchlib.spaces.checkpoint_coefficients import CheckpointCoefficients
from searchlib.spaces.curriculum_tasks import CurriculumTasks
from searchlib.spaces.eval_subsets import EvalSubsets
from searchlib.spaces.exemplar_sets import ExemplarSets
from searchlib.spaces.expert_merges import ExpertMatrices, ExpertMerges
from searchlib.spaces.experts import ExpertSubsets
from searchlib.spaces.fixed import Fixed
from searchlib.spaces.grouped import Grouped
from searchlib.spaces.integer import Integer
from searchlib.spaces.monotone import Monotone
from searchlib.spaces.multiset import Multiset
from searchlib.spaces.one_of import OneOf
from searchlib.spaces.permutation import Permutation
from searchlib.spaces.policy_parameters import PolicyParameters
from searchlib.spaces.product import Product
from searchlib.spaces.real import Real
from searchlib.spaces.simplex import Simplex
from searchlib.spaces.solver_schedule import SolverSchedule, SolverStep
from searchlib.spaces.solver_schedules import SolverSchedules
from searchlib.spaces.subset import Subset

__all__ = [
    "Affine",
    "Allocation",
    "AttentionConfigs",
    "AttentionPlan",
    "Binary",
    "BitPlan",
    "BitWidths",
    "Categorical",
    "CheckpointCoefficients",
    "CurriculumTasks",
    "EvalSubsets",
    "ExemplarSets",
    "ExpertMatrices",
    "ExpertMerges",
    "ExpertSubsets",
    "Fixed",
    "Grouped",
    "Integer",
    "Monotone",
    "Multiset",
    "OneOf",
    "Permutation",
    "PolicyParameters",
    "Product",
    "Real",
    "Simplex",
    "SizedTensor",
    "SolverSchedule",
    "SolverSchedules",
    "SolverStep",
    "Subset",
    "elastic_rules",
]
