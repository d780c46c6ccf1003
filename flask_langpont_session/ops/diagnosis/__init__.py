"""``flask langpont doctor``: reads the facts about an application, its stores and its host, and checks them.

The modules ``read_…`` ask; the modules ``…_checks`` say what it means, and are told everything: they ask nothing.
"""
