"""The rows of `./dev bench liveness`, and what they are measured on: a real control, crowds of simulated hosts, and
hosts whose heart and agent are real processes."""
