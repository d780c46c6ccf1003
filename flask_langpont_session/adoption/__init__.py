"""Taking over the sessions of Flask's cookie and of Flask-Session."""
