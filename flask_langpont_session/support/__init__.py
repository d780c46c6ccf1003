"""Tools that know nothing of sessions: threads, forks, files, waiting."""
