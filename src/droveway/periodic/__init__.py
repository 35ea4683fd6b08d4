"""What is done again and again: marked functions of the program, and an operator's own scripts."""
