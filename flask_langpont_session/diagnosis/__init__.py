"""``flask langpont doctor``: what is known of an application, its stores and its host, and what is to be said of it.

The modules ``read_…`` ask; the modules ``…_checks`` say what it means, and are told everything: they ask nothing.
"""
