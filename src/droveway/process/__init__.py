"""How each role is started and supervised; beside the simulation the only place that names drivers."""
