"""The failure detector: what is heard of hosts and services, and what is concluded from it."""
