"""The codecs: the form in which the stores and the journal keep session values, plain, or sealed where keys are set."""
