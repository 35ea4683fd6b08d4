"""Networks, subnets, ports, security groups, routers and floating IPs: their tables and every statement about them."""
