"""What the rows of `./dev bench cloud` and `network_servers` share."""
