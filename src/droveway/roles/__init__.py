"""What a process of each role is made of; with starts.py the only place that names drivers."""
