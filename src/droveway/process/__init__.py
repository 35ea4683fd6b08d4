"""What a process of each role is made of; with process/control.py the only place that names drivers."""
