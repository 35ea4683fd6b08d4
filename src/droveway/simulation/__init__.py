"""The whole program in one process under simulated time, with faults, and the laws asserted all the time."""
