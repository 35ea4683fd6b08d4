"""Will: sagas for what must end, loops for what must always hold."""
