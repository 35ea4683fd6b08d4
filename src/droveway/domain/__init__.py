"""Decisions: pure functions of values. No await, no clock, no IO, no logging; imports nothing of ours."""
