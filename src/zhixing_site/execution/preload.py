"""Imported once by the fork server: what most snippets import, and what every run needs."""

from zhixing_site.execution import executor

executor.warm_up()
