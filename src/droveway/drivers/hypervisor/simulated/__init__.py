"""Simulated hosts, under the same contract as real ones."""
