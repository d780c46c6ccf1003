"""What knows nothing of sessions: threads, forks, files, waiting."""
