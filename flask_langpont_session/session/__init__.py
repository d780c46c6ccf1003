"""What a view holds in its hands, by Flask's contract."""
