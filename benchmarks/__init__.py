"""What is measured: one file a claim, each a table of claims with their bars."""
