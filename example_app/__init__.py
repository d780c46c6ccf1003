"""A small LangPont, the example application of flask-langpont-session, and its outage lab."""
