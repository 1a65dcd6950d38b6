"""The modules of the method: tests look functions up in them at run time, so that a mutation can replace one.

By name: the package also exports functions that bear the names of their modules.
"""

from importlib import import_module

roles_module = import_module("actfocus.focus.roles")
signals_module = import_module("actfocus.focus.signals")
weights_module = import_module("actfocus.focus.weights")
objective_module = import_module("actfocus.focus.objective")
bottleneck_module = import_module("actfocus.focus.bottleneck")
ppo_module = import_module("actfocus.algorithms.ppo")
grpo_module = import_module("actfocus.algorithms.grpo")
