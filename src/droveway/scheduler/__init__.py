"""Where a guest may run, decided on columns of all hosts at once. Pure: facts in, a plan with its reasons out."""
