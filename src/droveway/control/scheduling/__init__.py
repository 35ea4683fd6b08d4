"""Control's side of the scheduler: the columns of all hosts, claims, dry runs."""
