"""A small LangPont: an application to copy from, whose session is kept by flask-langpont-session."""
