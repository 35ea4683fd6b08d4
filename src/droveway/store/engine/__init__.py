"""How the store works: transactions, the one writer, the databases, and what every query shares."""
