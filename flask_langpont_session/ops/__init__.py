"""The operators' wing: commands, checks, drills, alerts, exporters and the status page.

It imports the core. The core imports it at a few doors alone, and only where a setting or a command asks for it:
``build.py``, ``cli.py`` and ``status.py``.
"""
