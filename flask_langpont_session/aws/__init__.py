"""Everything that depends on AWS. boto3 is imported only where the configuration asks for it."""
