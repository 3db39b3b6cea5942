"""Imported once by the fork server: what most snippets import, and what every run needs."""

from zhixing_site import child

child.warm_up()
