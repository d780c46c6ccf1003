"""The status page of one process: from facts to HTML. It asks nothing and needs no application."""
