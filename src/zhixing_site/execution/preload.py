"""Imported once by the fork server: loads what most snippets import and every run needs, without garbage collection."""

import gc
from importlib import import_module

gc.disable()  # nearly all that is loaded stays; each run enables it for itself
import_module("torch")  # by its name: the builder does not depend on it
import_module("zhixing_site.execution.runner")
import_module("zhixing_site.execution.executor")
import_module("zhixing_site.execution.figures").warm_up()
gc.freeze()
